# Faults at random under load (test/chaos), in short: a few rounds of a fixed seed, so that each run does the
# same to the nodes.  Then the checkers themselves: a row changed behind payshard's back, one taken away from all
# copies, one that nobody sent, each at the quietest of times, must be reported as what they are.
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

# A round without faults, and what is done to the copies at its end.
sub tamper
{
	my ($what, $name, $sql, @nodes) = @_;
	my $round = ++$rounds;

	$w->run($round);
	$c->wait_until('some payments', 60, sub {
			$w->read_logs;
			return scalar(grep { $_->{outcome} eq 'ack' && $_->{kind} eq 'pay' } values %{ $w->{ops} }) >= 30;
		});
	$w->pause(60);
	$check->await_no_leftovers;
	my ($id) = sort { $a <=> $b } grep { $w->{ops}{$_}{outcome} eq 'ack' && $w->{ops}{$_}{kind} eq 'pay' } keys %{ $w->{ops} };
	my $op = $w->{ops}{$id};
	my %is_primary = map { $_->[1] => $_->[2] eq 't' } grep { $_->[0] == $op->{shard} } $check->placements(1);
	foreach my $i (grep { $nodes[0] eq 'all' || !$is_primary{$_} } sort keys %is_primary)
	{
		my $partition = $c->sql($i, "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'payments'::regclass "
			  . "AND inhrelid::regclass::text LIKE '%\\_$op->{shard}'");
		(my $statement = $sql) =~ s/%p/$partition/;
		$statement =~ s/%i/$id/;
		$c->sql($i, "SET session_replication_role = replica; $statement");
	}
	$check->{$_} = 0 foreach qw(lost doubled diverged other);
	$check->round;
	my @said = $check->say_found;
	cmp_ok($check->{$what}, '>', 0, "$name: $what") or diag(@said);
	note($_) foreach @said;
	return;
}

tamper('diverged', 'an amount changed at a secondary', 'UPDATE ONLY %p SET amount = amount + 1 WHERE id = %i', 'secondary');
$run->{cluster}{keep} = 0;
$w->end;
done_testing();
