# The network between nodes is cut: a primary that hears no majority serves
# nothing, reads included (Q1), and its shards are served elsewhere; who is
# only cut off from some is not failed over; who comes and goes is given pauses.
#
# Method: three data nodes that reach each other through a proxy which can be
# cut, silently and in one direction only.  Negative control: with rule Q1 off
# the cut-off primary answers with what was true before.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use PayshardProxy;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 16, auto => 1, conf => <<'CONF');
payshard.failover_wait = 0
payshard.lease_timeout = 1500ms
payshard.suspect_timeout = 1500ms
payshard.peer_timeout = 2s
payshard.call_timeout = 2s
payshard.commit_timeout = 10s
payshard.abort_timeout = 5s
payshard.fall_memory = 1h
CONF
my $p = PayshardPayments->new($c);
my $net = PayshardProxy->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

# What happened after a map and a time, as node i tells it: kind, node and reason of each
# incident, and whether its times can be true.
sub incidents
{
	my ($i, $epoch, $since) = @_;
	return $c->sql($i, "SELECT kind || ' ' || node || ': ' || reason || CASE WHEN failed BETWEEN '$since' AND detected AND detected <= decided "
		  . "THEN '' ELSE format(' (failed %s, detected %s, decided %s)', failed, detected, decided) END "
		  . "FROM payshard.incidents WHERE epoch > $epoch ORDER BY 1");
}

# Now; the last answer of who is cut off next may be a moment older.
sub now { my ($i) = @_; return $c->sql($i, "SELECT clock_timestamp() - interval '1 s'"); }

sub epoch { my ($i) = @_; return $c->sql($i, 'SELECT max(epoch) FROM payshard.map_history'); }

# A node that is primary of something; the others.
sub cast
{
	$p->wait_in_sync;
	my ($node) = sort { $p->accounts_at($b) <=> $p->accounts_at($a) } 1 .. 3;
	return ($node, grep { $_ != $node } 1 .. 3);
}

sub await_moved
{
	my ($i, $lost) = @_;
	return $c->wait_sql($i, "SELECT bool_and(state = 'open' AND primary_node <> 'n$lost') FROM payshard.shards", 120);
}

# Two that do not reach each other, but both the third: each goes on with its shards.
my %cut_pair = (
	'do not reach each other' => sub { $net->cut(1, 2) },
	'reach each other one way' => sub { $net->cut_way(1, 2) });
foreach my $how (sort keys %cut_pair)
{
	$p->wait_in_sync;
	my $epoch = epoch(3);
	my $since = now(3);
	my @primaries = grep { $p->accounts_between($_, 3 - $_) } 1, 2;
	$p->start($_, 30) foreach 1 .. 3;
	$cut_pair{$how}->();
	foreach my $i (1, 2)
	{
		my $other = 3 - $i;
		$c->wait_sql(3, "SELECT count(*) = 0 FROM payshard.shards WHERE primary_node = 'n$i' AND 'n$other' = ANY (in_sync)", 120);
	}
	$p->wait_open(120);
	$p->finish(300);
	# each suspects the other, and finds nobody who agrees
	$c->wait_sql(3 - $_, "SELECT count(*) > 0 FROM payshard.map_history h, payshard.events e WHERE h.epoch = $epoch AND e.at > h.changed_at "
		  . "AND e.kind = 'not_failed_over' AND e.node = 'n$_' AND e.detail LIKE '%but only 1 of 3 nodes find so'", 120) foreach @primaries;
	my $settled = epoch(3);
	is($settled - $epoch, scalar(@primaries), "two that $how: each leaves the other out, and no other map is made");
	$p->wait_open(120);
	is(epoch(3), $settled, 'nor while it lasts');
	is(incidents(3, $epoch, $since), join("\n", sort map { "left out n@{[3 - $_]}: node n@{[3 - $_]} does not answer node n$_" } @primaries),
		"two that $how: nobody is failed over, the incidents say so");
	$net->heal;
	$p->assert_kept("two that $how, and back");
	is($c->sql(3, "SELECT count(*) FROM payshard.incidents WHERE epoch > $epoch AND resumed IS NULL"), '0',
		"two that $how: what the third is primary of is not taken to have waited, and to wait still");
}

# Ways to cut node a off from nodes b and d.
my %cut = (
	'cut off' => sub { my ($a) = @_; $net->isolate($a); },
	'not heard' => sub { my ($a, @others) = @_; $net->cut_way($a, $_) foreach @others; },
	'hears nobody' => sub { my ($a, @others) = @_; $net->cut_way($_, $a) foreach @others; });

foreach my $how ('cut off', 'not heard', 'hears nobody')
{
	my ($a, $b, $d) = cast();
	my @moved = $p->accounts_at($a);
	my $read = "SELECT balance FROM accounts WHERE id = $moved[0]";

	is(scalar($p->pay($a, $moved[0])), 'ok', "$how: a payment before") || diag($p->{last_error});
	my $before = $c->sql($a, $read);
	my ($epoch, $since) = (epoch($b), now($b));
	# the clients at the node that is cut off wait for each payment
	$p->start($_, $_ == $a ? 3 : 12, accounts => [ grep { $_ != $moved[0] } $p->accounts_at($_) ]) foreach 1 .. 3;
	$cut{$how}->($a, $b, $d);
	await_moved($b, $a);
	is(scalar($p->pay($b, $moved[0])), 'ok', "$how: its shard takes payments elsewhere") || diag($p->{last_error});
	# in one direction news may reach it: then it sends on, or starts anew; what it says is true or nothing
	my ($status, $out, $err) = $c->try_sql($a, $read);
	isnt($out, $before, "$how: it does not read what was true before");
	like($err, qr/ERROR:  25006: this node has no lease/, 'it says that it has no lease') if $how eq 'cut off';
	my ($outcome) = $p->pay($a, $moved[0]);
	isnt($outcome, 'ok', "$how: it takes no payment") if $how eq 'cut off';
	if ($how eq 'cut off')
	{
		like($c->sql($a, 'SELECT payshard.status()'), qr/^None of \d+ shards accepts payments\b.*, n$a has no lease of a majority/, 'status() there says so first');
		like($c->sql($a, 'SELECT held FROM payshard.leases WHERE is_self'), qr/^f$/, 'payshard.leases says so, too');
		$c->sql($a, "SELECT payshard_fault.arm('Q1', 'off')");
		is($c->sql($a, $read), $before, 'negative control: without Q1 it reads what was true before');
		$c->sql($a, "SELECT payshard_fault.disarm('Q1')");
	}
	$net->heal;
	$p->finish(300);
	$p->assert_kept("$how, and back");
	like(incidents($b, $epoch, $since), qr/\A(?:failover|left out) n$a: (?:automatic failover of node n$a: it .*, 2 of 3 nodes agree|node n$a does not answer node n\d)\z/,
		"$how: one incident, which says what happened");
}

# A primary and a node that holds copies of its shards.
sub link_ends
{
	my ($copy) = grep { $_->[2] eq 'f' } $p->placements;
	return ($p->primary_of((grep { $p->{shard}{$_} == $copy->[0] } 1 .. $p->{accounts})[0]), $copy->[1]);
}

# A link that comes and goes, then a node: from the third fall on a pause is given before it joins again.
my %flap = (
	'a link' => [ link_ends(), sub { $net->cut(link_ends()) } ],
	'a node' => [ (cast())[ 1, 0 ], sub { my ($a) = @_; $net->isolate($a) } ]);
foreach my $what (sort keys %flap)
{
	my ($b, $a, $cut) = @{ $flap{$what} };
	my $offset = $c->log_size($b);
	my $falls = sub { return $c->sql($b, "SELECT falls FROM payshard.leases WHERE node = 'n$a'"); };

	do
	{
		my $n = $falls->();
		$p->wait_in_sync(180);
		$cut->($a);
		$c->wait_until("node $a to fall", 120, sub { $falls->() > $n });
		$net->heal;
	} while ($falls->() < 3);
	$c->wait_log($b, qr/node "n$a" has fallen \d+ times lately: it joins again in \d+ s/, 120, $offset);
	$p->{seconds} = 180;
	$p->assert_kept("$what that came and went");
}

done_testing();
