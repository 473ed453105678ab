# ChaosReport.pm
#		How long did payments stand still, how long did it take until all was well again, and does
#		payshard.availability say the same?
#
#	my $r = ChaosReport->new($cluster);
#	$r->begin_round;
#	$r->note_fault('kill9', [1], $at, \%primary_of);
#	$r->end_round($workload, $healed_at, $recovery_s);		# before the workload forgets
#	print $r->text($check, $faults);
#
# Unavailability is a figure for each shard whose primary was on a node that the fault was about: from
# the fault until the first operation that was begun after it, at any node, was acknowledged in this shard.  By the clients' logs.
package ChaosReport;

use strict;
use warnings;

my $standstill_s = 1;			# shorter ones are not compared
my $tolerance_s = 1;

sub new
{
	my ($class, $cluster) = @_;
	return bless {
		cluster => $cluster, tally => {}, by_kind => {}, states => {}, took => {}, recovery => {}, faults => [], n_rounds => 0,
		compared => 0, unequal => 0, worst => 0, begun => time() }, $class;
}

# Seconds that each shard was down, by payshard itself; undef if nobody answers.
sub _down
{
	my ($self) = @_;
	my $c = $self->{cluster};
	foreach my $i (1 .. $c->{nodes})
	{
		my ($status, $out) = $c->try_sql($i, "SELECT name, down_s FROM payshard.availability WHERE scope = 'shard'", timeout => 30);
		return { map { split /\|/ } split /\n/, $out } if $status == 0;
	}
	return undef;
}

sub begin_round
{
	my ($self) = @_;
	$self->{faults} = [];
	$self->{down} = $self->_down;
	return;
}

sub note_fault
{
	my ($self, $kind, $nodes, $at, $primary_of) = @_;
	my %is_hurt = map { $_ => 1 } @$nodes;
	push @{ $self->{faults} }, { kind => $kind, at => $at, shards => [ grep { $is_hurt{ $primary_of->{$_} } } sort { $a <=> $b } keys %$primary_of ] };
	return;
}

sub end_round
{
	my ($self, $workload, $healed_at, $recovery_s, %options) = @_;
	my $name = join '+', sort map { $_->{kind} } @{ $self->{faults} };
	my %acks;					# shard => [[begun, ended], ...]

	$self->{n_rounds}++;
	push @{ $self->{recovery}{$name} }, $recovery_s if defined $recovery_s;
	foreach my $op (values %{ $workload->{ops} })
	{
		$self->{tally}{ $op->{outcome} }++;
		$self->{by_kind}{ $op->{kind} }++;
		$self->{states}{ $op->{state} }++ if $op->{outcome} ne 'ack';
		push @{ $acks{ $op->{shard} } }, [ $op->{begun} / 1000, $op->{ended} / 1000 ] if $op->{outcome} eq 'ack' && $op->{kind} ne 'big';
	}
	my $longest = 0;
	foreach my $fault (@{ $self->{faults} })
	{
		foreach my $shard (@{ $fault->{shards} })
		{
			my $first;
			foreach my $ack (@{ $acks{$shard} // [] })
			{
				$first = $ack->[1] if $ack->[0] >= $fault->{at} && (!defined $first || $ack->[1] < $first);
			}
			my $took = defined $first ? $first - $fault->{at} : time() - $fault->{at};
			push @{ $self->{took}{$name} }, $took;
			$longest = $took if $took > $longest;
		}
	}
	$self->_compare(\%acks, $name) unless $options{clock_moved};
	return $longest;
}

# How long the clients saw each shard stand still in this round, beside what payshard says.
sub _compare
{
	my ($self, $acks, $name) = @_;
	my $was = $self->{down} // return;
	my $now = $self->_down // return;
	my $begun = $self->{faults}[0]{at} - 1;

	$self->{differences} = [];
	foreach my $shard (keys %$now)
	{
		my @ended = sort { $a <=> $b } map { $_->[1] } @{ $acks->{$shard} // [] };
		my $stood = 0;
		foreach my $k (1 .. $#ended)
		{
			my $gap = $ended[$k] - $ended[ $k - 1 ];
			$stood += $gap if $gap >= $standstill_s && $ended[$k] > $begun;
		}
		my $said = $now->{$shard} - ($was->{$shard} // 0);
		my $difference = abs($said - $stood);
		$self->{compared}++;
		next if $difference <= $tolerance_s;
		$self->{unequal}++;
		$self->{worst} = $difference if $difference > $self->{worst};
		push @{ $self->{differences} }, sprintf 'shard %d: clients %.1f s, availability %.1f s', $shard, $stood, $said;
	}
	return;
}

# The nearest rank, of sorted numbers.
sub _rank
{
	my ($share, @sorted) = @_;
	my $k = int($share * @sorted + 0.999999) - 1;
	return $sorted[ $k < 0 ? 0 : $k ];
}

sub _figures
{
	my (@numbers) = @_;
	my @sorted = sort { $a <=> $b } @numbers;
	return sprintf '%6.2f %6.2f %6.2f', _rank(0.5, @sorted), _rank(0.99, @sorted), $sorted[-1];
}

sub text
{
	my ($self, $check, $faults) = @_;
	my $n = 0;
	$n += $_ foreach values %{ $self->{tally} };
	my $list = sub { my ($h) = @_; return join ', ', map { "$_ $h->{$_}" } sort keys %$h; };
	my $text = sprintf "rounds %d in %d s\nfaults: %s\n", $self->{n_rounds}, time() - $self->{begun}, $list->($faults->{count});

	$text .= "left out here: $_\n" foreach @{ $faults->{left_out} // [] };
	$text .= "operations $n: " . $list->($self->{by_kind}) . "\n";
	$text .= sprintf "acknowledged %d, aborted %d, unknown %d\n", map { $self->{tally}{$_} // 0 } qw(ack aborted unknown);
	$text .= 'SQLSTATEs of those not acknowledged: ' . $list->($self->{states}) . "\n";
	$text .= sprintf "%-28s %6s  %s   %s\n", 's', 'shards', 'unavailable p50 / p99 / max', 'recovery p50 / p99 / max';
	my @rows = map { [ $_, $self->{took}{$_} // [], $self->{recovery}{$_} // [] ] } sort keys %{ { %{ $self->{took} }, %{ $self->{recovery} } } };
	my %all = (took => [ map { @{ $_->[1] } } @rows ], recovery => [ map { @{ $_->[2] } } @rows ]);
	foreach my $row (@rows, [ 'all', $all{took}, $all{recovery} ])
	{
		my ($name, $took, $recovery) = @$row;
		$text .= sprintf "%-28s %6d  %-27s   %s\n", $name, scalar(@$took), @$took ? _figures(@$took) : '-', @$recovery ? _figures(@$recovery) : '-';
	}
	$text .= sprintf "availability of shards, clients' logs beside payshard.availability: %d compared, %d more than %d s apart, worst %.1f s\n",
	  $self->{compared}, $self->{unequal}, $tolerance_s, $self->{worst};
	$text .= "other violations: $check->{other}\n" if $check->{other};
	return $text;
}

1;
