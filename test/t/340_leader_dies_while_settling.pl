# Whoever settles a lost primary dies in the middle: another takes over from what
# is durable (F2), and no payment is lost or comes back.
#
# Method: four nodes, three with data.  Node 3 dies under load with payments in flight
# that only some have journaled; node 2 leads and is killed at each step.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 5, replicas => 3, witness => [ 4, 5 ], shards => 8,
	conf => "payshard.peer_timeout = 700ms\npayshard.call_timeout = 2s\n");
my $p = PayshardPayments->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

foreach my $point (qw(settle.before_tails settle.after_tails settle.after_journal settle.after_apply settle.after_settled))
{
	# a primary that has load
	my ($victim) = grep { $p->accounts_at($_) } 3, 1, 2;
	my ($leader, $third) = grep { $_ != $victim } 2, 1, 3;
	# a payment that only one of the copies has journaled
	$c->sql($leader, "SELECT payshard_fault.arm('receiver.before_journal', 'pause')");
	$p->start($victim, 40) foreach 1 .. 2;
	$c->wait_sql($leader, "SELECT payshard_fault.paused('receiver.before_journal')");
	$c->kill9($victim, all => 1);
	$c->sql($leader, "SELECT payshard_fault.disarm('receiver.before_journal')");
	$c->sql($leader, "SELECT payshard_fault.arm('$point', 'panic')");
	my ($status, $out, $err) = $c->try_sql($leader, "SELECT payshard.failover('n$victim')", timeout => 60);
	# settled: failover() may have heard of it before the keeper dies
	isnt($status, 0, "$point: the leader dies") if $point ne 'settle.after_settled';
	$c->wait_down($leader);
	$p->finish;
	# the third takes over by itself; a call of failover() waits for it
	if ($point ne 'settle.after_settled')
	{
		($status, $out, $err) = $c->try_sql($third, "SELECT payshard.failover('n$leader')", timeout => 90);
		is($status, 0, "$point: the third copy fails over the dead leader, too") || diag($err);
		my ($account) = $p->accounts_at($third, $third);
		is(scalar($p->pay($third, $account)), 'ok', "$point: open again with one copy") || diag($p->{last_error});
	}
	$c->start($_) foreach $victim, $leader;
	$p->assert_kept($point) or last;
}
done_testing();
