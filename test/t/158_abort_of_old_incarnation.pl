# A backend that takes its payment back comes too late: the node has a new incarnation by then. Its abort
# must not get into the stream of the new one, where the same seq is another payment's (W7).
#
# Method: nothing reaches node 2, so that two payments wait. The first is cancelled and stands still before its
# abort; the second cannot confirm its own, so that node 1 takes a new incarnation. Then payments go on,
# and at last the first one does.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => <<'CONF');
payshard.peer_timeout = 10min
payshard.abort_timeout = 1s
CONF
my $p = PayshardPayments->new($c);
my @accounts = $p->accounts_between(1, 2);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1, 2;
my $last_seq = "SELECT max(queued_seq) FROM payshard.replication WHERE node = 'n2'";

# A payment at node 1 that waits: its backend.
my %seen;
sub waiting_payment
{
	my ($account) = @_;
	$p->start(1, 1, accounts => [$account]);
	my $pid = $c->wait_until('the payment to wait', 20, sub {
			return (grep { !$seen{$_} } split /\n/, $c->sql(1, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'"))[0]; });
	$seen{$pid} = 1;
	return $pid;
}

sub run
{
	my $incarnation = $c->sql(1, 'SELECT payshard.incarnation()');
	$c->sql(1, "SELECT payshard_fault.arm('sender.before_send.n2', 'pause')");
	my $first = waiting_payment($accounts[0]);
	my $second = waiting_payment($accounts[1]);
	$c->sql(1, "SELECT payshard_fault.arm('commit.before_abort', 'pause')");
	$c->sql(1, "SELECT pg_cancel_backend($first)");
	$c->wait_sql(1, "SELECT payshard_fault.paused('commit.before_abort')");
	$c->sql(1, "SELECT pg_cancel_backend($second)");
	$c->wait_sql(1, "SELECT payshard.incarnation() > $incarnation");
	$c->sql(1, "SELECT payshard_fault.disarm('sender.before_send.n2')");
	$c->wait_sql(1, "SELECT count(*) = 0 FROM payshard.shards WHERE state <> 'open'");
	foreach my $i (1 .. 20) { $c->wait_until('a payment', 20, sub { ($c->try_sql(1, "UPDATE accounts SET balance = balance WHERE id = $accounts[2]"))[0] == 0 }); }
	my $before = $c->sql(1, $last_seq);
	$c->sql(1, "SELECT payshard_fault.disarm('commit.before_abort')");
	$c->wait_sql(1, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $first AND state = 'active'");
	$p->finish;
	return $c->sql(1, $last_seq) - $before;
}

is(run(), 0, 'nothing of it is sent in the new incarnation');
is(join(' ', map { $p->{state}{$_} // '' } sort { $a <=> $b } keys %{ $p->{outcome} }), '08007 08007', 'both clients hear that it is not known');
$p->assert_kept('after a late abort');

$c->sql(1, "SELECT payshard_fault.arm('W7.own', 'off')");
is(run(), 1, 'with the rule W7.own off there is an ABORT');
done_testing();
