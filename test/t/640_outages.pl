# Payments stand still though no map changes: payshard.stops, incidents and availability say
# of which shards, since when and until when.
#
# Method: three data nodes with timeouts so long that nobody is left out or failed over. A secondary
# that holds an entry back, a primary without a majority, one that stands still, one whose
# disk is full. Each is over when the event that it has begun, or gone on for long enough, is seen. Then the
# other way round: a secondary that answers, but cannot journal, is left out all the same.
# Negative control: with S3.outages off the views are silent.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use PayshardProxy;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 16, auto => 1, conf => <<'CONF');
payshard.failover_wait = 0
payshard.lease_timeout = 1s
payshard.suspect_timeout = 10min
payshard.peer_timeout = 10min
payshard.call_timeout = 2s
payshard.commit_timeout = 10min
CONF
my $p = PayshardPayments->new($c);
my $net = PayshardProxy->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;
$p->wait_in_sync;

my ($node) = sort { $p->accounts_at($b) <=> $p->accounts_at($a) } 1 .. 3;
my ($other) = grep { $_ != $node && $p->accounts_between($node, $_) } 1 .. 3;
my ($account) = $p->accounts_between($node, $other);
my $shard = $p->{shard}{$account};
# shards that wait for the other's copy
my @shared = do { my %n; $n{ $p->{shard}{$_} } = 1 foreach $p->accounts_between($node, $other); sort { $a <=> $b } keys %n };
my @own = map { $_->[0] } grep { $_->[2] eq 't' && $_->[1] == $node } $p->placements($node);
my $epoch = $c->sql($node, 'SELECT max(epoch) FROM payshard.map_history');
my $begun = now();

sub now { return $c->sql($node, 'SELECT clock_timestamp()'); }

# What node i knows of the primary since a time, as text: kind and shards.
sub stopped
{
	my ($i, $since) = @_;
	return $c->sql($i, "SELECT string_agg(x, '; ' ORDER BY x) FROM (SELECT kind || ' ' || string_agg(shard::text, ',' ORDER BY shard) AS x "
		  . "FROM payshard.stops WHERE node = 'n$node' AND since >= '$since'::timestamptz - interval '1 s' AND until IS NOT NULL GROUP BY kind) k");
}

# An outage of these shards, under way: done until it is written down as begun, then ended; its incident.
sub try_outage
{
	my ($kind, $what, $shards, $begin, $end) = @_;
	my $since = now();

	$begin->();
	$end->();
	foreach my $i ($node, $other)
	{
		$c->wait_sql($i, "SELECT count(*) > 0 FROM payshard.events WHERE kind = 'payments_resumed' AND node = 'n$node' AND at > '$since' AND detail LIKE '$kind %'", 60);
	}
	is($c->sql($other, "SELECT string_agg(DISTINCT format('%s of %s, planned %s, epoch %s', kind, node, planned, coalesce(epoch::text, 'none')), '; ') FROM payshard.incidents WHERE failed > '$begun'"
			  . " AND kind = '$kind' AND open_again > '$since' AND failed <= detected AND detected <= open_again AND back_in_sync = open_again"),
		"$kind of n$node, planned f, epoch none", "$what: an incident, told at another node")
	  || diag($c->sql($other, 'TABLE payshard.incidents'), "\n", $c->sql($other, "SELECT * FROM payshard.event_log WHERE kind LIKE 'payments%'"));
	my ($of) = stopped($other, $since) =~ /(?:^|; )$kind ([0-9,]+)(?:;|$)/;
	ok((grep { $_ eq $of } $shards, $kind eq 'held' ? join(',', @shared) : ()), "$what: of the right shards") || diag(stopped($other, $since));
	is($c->sql($other, "SELECT bool_and(down_s >= 0.5) FROM payshard.availability WHERE scope = 'shard' AND name::int IN ($shards)"), 't', "$what: they were down");
	return $since;
}

sub await_begun
{
	my ($kind) = @_;
	return sub {
		my ($since) = @_;
		$c->wait_sql($node, "SELECT count(*) > 0 FROM payshard.stops WHERE node = 'n$node' AND kind = '$kind' AND until IS NULL", 60);
		is($c->sql($node, "SELECT count(*) > 0 FROM payshard.incidents WHERE kind = '$kind' AND node = 'n$node' AND open_again IS NULL"), 't', "$kind: an incident while it lasts");
	};
}

# A payment that waits, in the background; ended by whatever lets it go on.
sub hold
{
	my ($seen) = @_;
	$c->arm_fault($other, 'receiver.before_commit', 'pause', 1);
	$p->start($node, 1, accounts => [$account]);
	$c->wait_sql($other, "SELECT payshard_fault.paused('receiver.before_commit')", 60);
	$seen->();
	return;
}

sub let_go
{
	$c->sql($other, "SELECT payshard_fault.disarm('receiver.before_commit')");
	$p->finish(120);
	return;
}

try_outage('held', 'a secondary holds an entry back', $shard, sub { hold(await_begun('held')) }, \&let_go);
is($c->sql($other, "SELECT count(*) FROM payshard.availability WHERE scope = 'shard' AND down_s > 0 AND name::int <> ALL ('{" . join(',', @shared) . "}')"), '0', 'no shard without a copy there was down');

try_outage('no lease', 'no majority', join(',', sort { $a <=> $b } @own), sub { $net->isolate($node); await_begun('no lease')->(); }, sub { $net->heal });

# the others see how long it stands still
try_outage('frozen', 'a server that stands still', join(',', sort { $a <=> $b } @own), sub {
		$c->pause($node);
		$c->wait_sql($other, "SELECT count(*) > 0 FROM payshard.silences WHERE node = $node AND heard_again IS NULL AND last_heard < clock_timestamp() - interval '2 s'", 60);
	}, sub { $c->resume($node) });

try_outage('failing', 'a full disk', $shard, sub {
		$c->arm_fault($node, 'commit.before_enqueue', 'full', 1);
		$c->wait_until('payments that fail to be noticed', 60, sub {
				$p->pay($node, $account);
				return $c->sql($node, "SELECT count(*) > 0 FROM payshard.stops WHERE node = 'n$node' AND kind = 'failing' AND until IS NULL") eq 't';
			});
	}, sub {
		$c->sql($node, "SELECT payshard_fault.disarm('commit.before_enqueue')");
		is(scalar($p->pay($node, $account)), 'ok', 'the disk has room again');
	});

is($c->sql($other, 'SELECT max(epoch) FROM payshard.map_history'), $epoch, 'the map is as it was');
is($c->sql($other, 'SELECT incidents >= 4, failovers, worst_s >= 0.5, transactions_lost FROM payshard.recovery_stats'), 't|0|t|0', 'recovery_stats counts them');

# negative control; the one that follows it is seen
$c->sql($node, "SELECT payshard_fault.arm('S3.outages', 'off')");
my $silent = now();
hold(sub { $c->wait_sql($node, "SELECT clock_timestamp() > '$silent'::timestamptz + interval '2 s'", 60) });
let_go();
$c->sql($node, "SELECT payshard_fault.disarm('S3.outages')");
my $loud = now();
try_outage('held', 'held once more', $shard, sub { hold(await_begun('held')) }, \&let_go);
is($c->sql($other, "SELECT count(*) FROM payshard.stops WHERE until BETWEEN '$silent' AND '$loud'"), '0', 'negative control: with S3.outages off nobody is told');

# A secondary that answers each time, but cannot journal, is no reason to wait for ever.
$c->sql($_, 'ALTER SYSTEM SET payshard.peer_timeout = \'1s\'; SELECT pg_reload_conf()') foreach 1 .. 3;
my $left = now();
$c->arm_fault($other, 'receiver.before_journal', 'full', 1);
is(scalar($p->pay($node, $account)), 'ok', 'a secondary with a full disk is left out, and payments go on') || diag($p->{last_error});
is($c->sql($node, "SELECT count(*) > 0 FROM payshard.incidents WHERE kind = 'left out' AND node = 'n$other' AND $shard = ANY (paused) AND decided > '$left'"), 't', 'an incident says so');
$c->sql($other, "SELECT payshard_fault.disarm('receiver.before_journal')");
$p->assert_kept('after all that');

done_testing();
