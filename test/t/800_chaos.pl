# Faults at random under load (test/chaos), in short: a few rounds of a fixed seed, so that each run does the
# same to the nodes.  Then the checkers themselves: with two rules of the protocol switched off (PS_RULE in
# src/node/fault.h) they must find something.
use strict;
use warnings;
use Cwd ();
use File::Basename ();
use lib Cwd::abs_path(File::Basename::dirname(__FILE__)) . '/../chaos';
use ChaosCluster;
BEGIN { ChaosCluster->enter }
use ChaosRun;
use Test::More;

my $rounds = $ENV{CHAOS_ROUNDS} // 4;
my $run = ChaosRun->new(
	source => Cwd::abs_path(File::Basename::dirname(__FILE__) . '/../chaos'),
	seed => $ENV{CHAOS_SEED} || 4, rounds => $rounds, faults => $ENV{CHAOS_FAULTS}, quiet => sub { note($_[0]); });
my ($c, $w, $check) = @$run{qw(cluster workload check)};

is($run->{faults}->text($run->{faults}->plan(3)), $run->{faults}->text($run->{faults}->plan(3)), 'a round does the same whenever it is planned');
$run->go;
ok($check->is_clean, "$rounds rounds of faults: nothing lost, doubled or diverged") or do
{
	$run->finish;
	BAIL_OUT('the rest would say nothing');
};

# The clock of a node is put ahead by a day while its processes start, and back: that they must not be started too often
# is no reason to wait for a day.
eval {
	$run->round(++$rounds, { kind => 'clock_jump', victim => 2, seconds => 6, number => 3 },
		{ kind => 'kill_backend', victim => 2, seconds => 4, number => 0, after => 1 });
	my $senders = "FROM pg_stat_activity WHERE backend_type LIKE 'payshard sender %'";
	$c->sql(2, "SELECT pg_terminate_backend(pid, 10000) $senders");
	$c->wait_sql(2, "SELECT count(*) = 2 $senders", 60);
	1;
} or fail("a clock that jumps: $@");
ok($check->is_clean, 'a clock that jumps ahead and back holds nobody up for as long') or diag($check->say_found);

# Copies that come back without what they missed, and nobody compares them (J1 and J4 off): it must be found.
foreach my $i (1, 3)
{
	$c->arm_fault($i, $_, 'off') foreach 'J1', 'J4';
}
eval { $run->round(++$rounds, { kind => 'kill9', victim => 2, seconds => 6 }); 1 } or diag($@);
cmp_ok($check->{lost}, '>', 0, 'rules switched off: what is not on all copies is reported as lost');
cmp_ok($check->{diverged}, '>', 0, 'and the copies as diverged');
ok(!$check->is_clean, 'and the run as failed');
$w->end;
done_testing();
