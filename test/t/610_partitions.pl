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

my $c = PayshardCluster->new(nodes => 3, shards => 16, conf => <<'CONF');
payshard.auto_failover = on
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

# Nodes that were failed over after a map, as node i knows it.
sub failures
{
	my ($i, $epoch) = @_;
	return $c->sql($i, "SELECT count(*) FROM payshard.events WHERE kind = 'node_failed' AND epoch > $epoch");
}

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
	$p->start($_, 12, accounts => [ grep { $_ != $moved[0] } $p->accounts_at($_) ]) foreach 1 .. 3;
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
		like($c->sql($a, 'SELECT held FROM payshard.leases WHERE is_self'), qr/^f$/, 'payshard.leases says so, too');
		$c->sql($a, "SELECT payshard_fault.arm('Q1', 'off')");
		is($c->sql($a, $read), $before, 'negative control: without Q1 it reads what was true before');
		$c->sql($a, "SELECT payshard_fault.disarm('Q1')");
	}
	$p->finish(300);
	$net->heal;
	$p->assert_kept("$how, and back");
	like($c->sql($b, "SELECT kind || ' ' || transactions_lost || ' ' || reason FROM payshard.incidents WHERE node = 'n$a' ORDER BY epoch DESC LIMIT 1"),
		qr/^failover 0 automatic failover of node n$a: it .*, 2 of 3 nodes agree$/, "$how: the incident says what happened");
}

# Two that do not reach each other, but both the third: each goes on with its shards.
$p->wait_in_sync;
my $epoch = $c->sql(3, 'SELECT max(epoch) FROM payshard.map_history');
$p->start($_, 30) foreach 1 .. 3;
$net->cut(1, 2);
foreach my $i (1, 2)
{
	my $other = 3 - $i;
	$c->wait_sql(3, "SELECT count(*) = 0 FROM payshard.shards WHERE primary_node = 'n$i' AND 'n$other' = ANY (in_sync)", 120);
}
$p->wait_open(120);
is(failures(3, $epoch), 0, 'two nodes cut off from each other: nobody is failed over');
$p->finish(300);
$net->heal;
$p->assert_kept('two nodes cut off from each other, and back');

# A node that comes and goes: from the third fall on it is given a pause before it joins again.
my ($a, $b) = cast();
my $offset = $c->log_size($b);
my $falls = sub { return $c->sql($b, "SELECT falls FROM payshard.leases WHERE node = 'n$a'"); };
while ($falls->() < 3)
{
	my $n = $falls->();
	$net->isolate($a);
	$c->wait_until("node $a to fall", 120, sub { $falls->() > $n });
	$net->heal;
	$p->wait_in_sync(120) if $falls->() < 3;
}
$c->wait_log($b, qr/node "n$a" has fallen \d+ times lately: it joins again in \d+ s/, 120, $offset);
$p->{seconds} = 180;
$p->assert_kept('a node that came and went');

done_testing();
