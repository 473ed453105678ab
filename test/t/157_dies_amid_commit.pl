# Whatever goes wrong once the other nodes have a payment: its client hears that the outcome is not known
# (08007), never an error that says it was not done.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "restart_after_crash = on\npayshard.peer_timeout = 10min\n");
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_at(1);
my $id = 1000;

# pay(name): one payment at node 1; what psql says of its failure.
sub pay
{
	my ($status, $out, $err) = $c->try_sql(1, "INSERT INTO payments VALUES ($account, " . ++$id . ", 0, 'dies')");
	return $status == 0 ? 'done' : $err;
}

sub wait_up
{
	my ($incarnation) = @_;
	$c->wait_sql(1, "SELECT payshard.incarnation() > $incarnation");
	$p->wait_in_sync;
	$p->wait_open;
	return;
}

foreach my $case ([ 'commit.before_dirty', 'full', 'the disk is full before the local commit' ], [ 'commit.before_local', 'full', 'the disk is full amid the local commit' ],
	[ 'commit.after_local', 'error', 'an error after the local commit' ])
{
	my ($point, $action, $name) = @$case;
	my $incarnation = $c->sql(1, 'SELECT payshard.incarnation()');
	$c->arm_fault(1, $point, $action);
	like(pay(), qr/PANIC:  08007/, "$name: the client hears that it is in doubt");
	wait_up($incarnation);
	is($c->sql(1, "SELECT count(*) FROM payments WHERE account_id = $account AND id = $id"), '1', '... and it is rolled forward');
}

# The abort of a payment that must be taken back fails, too.
my $incarnation = $c->sql(1, 'SELECT payshard.incarnation()');
$c->arm_fault(1, 'commit.after_enqueue', 'error');
$c->arm_fault(1, 'commit.before_abort', 'full');
like(pay(), qr/ERROR:  08007/, 'an error amid taking it back: the client hears that it is in doubt');
$c->sql(1, "SELECT payshard_fault.disarm('commit.before_abort')");
wait_up($incarnation);
my @found = map { $c->sql($_, "SELECT count(*) FROM payshard.peer_rows('public.payments', payshard.shard_for('payments', $account)) r WHERE r LIKE '%$id%'") } 1, 2;
is($found[0], $found[1], "... and it is the same on both copies ($found[0])");
is($c->sql(1, 'SELECT count(*) FROM payshard.verify() WHERE equal IS NOT TRUE'), '0', 'all copies are equal');
done_testing();
