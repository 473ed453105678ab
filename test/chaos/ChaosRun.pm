# ChaosRun.pm
#		A run of the chaos harness: round after round until the time, or the number of rounds, is over.
#
#	my $run = ChaosRun->new(source => 'test/chaos', seed => 42, rounds => 3);
#	$run->go;
#	my $is_clean = $run->finish;		# prints the report and the last line
package ChaosRun;

use strict;
use warnings;
use ChaosCheck;
use ChaosCluster;
use ChaosFaults;
use ChaosReport;
use ChaosWorkload;
use IO::Handle;
use Test::More;
use Time::HiRes qw(time usleep sleep);

my $warm_s = 1.5;
my $sync_s = 300;
my $pause_s = 150;
my $told_s = 12;

# new(%options): source, seed, seconds, rounds, faults (names of kinds), rules_off, conf; quiet => sub that says a line
sub new
{
	my ($class, %options) = @_;
	my $self = bless { %options, begun => time() }, $class;

	# what goes to STDOUT goes to the log of the test
	$self->{out} = Test::More->builder->output;
	$self->{out}->autoflush(1);

	$self->{seed} //= int(time()) % 1_000_000;
	$self->say("seed $self->{seed}: CHAOS_SEED=$self->{seed} repeats this sequence of faults");
	my $c = $self->{cluster} = ChaosCluster->new(
		nodes => 3, shards => 16, auto => 1, source => $options{source}, conf => $options{conf} // '', rules_off => $options{rules_off});
	$self->say(ChaosCluster->has_namespaces ? 'nodes have networks of their own, and their WAL on small disks'
		: 'no namespaces here: links go through a proxy');
	$self->{workload} = ChaosWorkload->new($c, source => $options{source});
	$self->{check} = ChaosCheck->new($c, $self->{workload});
	$self->{faults} = ChaosFaults->new($c, seed => $self->{seed}, only => $options{faults});
	$self->{report} = ChaosReport->new($c);
	return $self;
}

sub say
{
	my ($self, $text) = @_;
	my $line = sprintf '%6.1f  %s', time() - $self->{begun}, $text;
	return $self->{quiet}->($line) if $self->{quiet};
	print { $self->{out} } "$line\n";
	return;
}

sub is_over
{
	my ($self, $round) = @_;
	return $round > $self->{rounds} if $self->{rounds};
	return time() - $self->{begun} >= $self->{seconds};
}

sub go
{
	my ($self) = @_;

	for (my $round = 1; !$self->is_over($round); $round++)
	{
		eval { $self->round($round); 1 } or do
		{
			$self->{check}->found('other', "round $round could not be carried through: $@");
			$self->say($_) foreach $self->{check}->say_found;
			last;
		};
		# what comes after a violation would only hide its traces
		last unless $self->{check}->is_clean;
	}
	return;
}

# shard => number of its primary, as the first node that answers has it
sub primaries
{
	my ($self) = @_;
	foreach my $i (1 .. $self->{cluster}{nodes})
	{
		my %primary = map { $_->[0] => $_->[1] } grep { $_->[2] eq 't' } $self->{check}->placements($i);
		return \%primary if %primary;
	}
	return {};
}

# One round, with the faults of the plan unless others are given.
sub round
{
	my ($self, $round, @faults) = @_;
	my ($w, $check, $report, $f) = @$self{qw(workload check report faults)};
	@faults = $f->plan($round) unless @faults;
	my (@said, $clock_moved);

	$w->run($round);
	$report->begin_round;
	my $primary_of = $self->primaries;
	sleep($warm_s);
	my $first_at = time();
	my $end = 0;
	foreach my $fault (@faults)
	{
		my $wait = $first_at + ($fault->{after} // 0) - time();
		sleep($wait) if $wait > 0;
		my $done = $f->inject($fault, $primary_of);
		$report->note_fault($fault->{kind}, $done->{nodes}, $done->{at}, $primary_of);
		push @said, $done->{said};
		$clock_moved ||= $fault->{kind} =~ /clock/;
		$end = $done->{at} + $fault->{seconds} if $done->{at} + $fault->{seconds} > $end;
	}
	sleep($end - time()) if $end > time();
	$f->heal;
	my $healed_at = time();
	my $recovery = $check->await_sync($sync_s);
	$w->pause($pause_s);
	my $longest = $report->end_round($w, $healed_at, $recovery, clock_moved => $clock_moved);
	my %n;
	$n{ $_->{outcome} }++ foreach values %{ $w->{ops} };
	$check->round if defined $recovery;
	$self->say(sprintf 'round %d: %s [%s]: unavailable %.1f s, recovered after %s s; acknowledged %d, aborted %d, unknown %d',
		$round, $f->text(@faults), join('; ', @said), $longest, defined $recovery ? sprintf('%.1f', $recovery) : 'more than ' . $sync_s,
		map { $n{$_} // 0 } qw(ack aborted unknown));
	$self->say("  $_") foreach $check->say_found;
	$w->forget;
	return;
}

# The report and the last line; true if nothing is wrong.
sub finish
{
	my ($self) = @_;
	my $check = $self->{check};

	$self->{workload}->end;
	# nodes tell each other what they have noticed every some seconds
	sleep($told_s);
	eval { $self->{report}->compare; 1 } or $self->say("the availability could not be compared: $@");
	if (!$check->is_clean)
	{
		$self->{cluster}{keep} = 1;
		open my $mark, '>', ($ENV{TESTDIR} // '.') . '/FAILED';
		$self->say("logs of the clients: $self->{workload}{dir}; logs and data directories of the nodes: "
			  . join ' ', map { $self->{cluster}->node($_)->basedir } 1 .. $self->{cluster}{nodes});
		$self->say("repeat with CHAOS_SEED=$self->{seed}");
	}
	my $text = $self->{report}->text($check, $self->{faults}) . "seed $self->{seed}\n"
	  . "lost $check->{lost} doubled $check->{doubled} diverged $check->{diverged}\n";
	if ($self->{quiet}) { $self->{quiet}->($_) foreach split /\n/, $text; }
	else { print { $self->{out} } $text; }
	return $check->is_clean;
}

1;
