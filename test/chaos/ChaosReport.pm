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
# The view is held against two things that the clients' logs say of a shard: where it stood still for a second or more, from
# the first operation that had to wait or failed until the next one that was acknowledged, the view must have it down; where
# the view has it down, no operation was acknowledged.  What one of them says and the other does not is apart, in seconds.
#
# Unavailability is a figure for each shard whose primary was on a node that the fault was about: the longest time
# after the fault, until the round's end, in which no operation in this shard was acknowledged, at any node.  By the clients' logs.
package ChaosReport;

use strict;
use warnings;
use Time::HiRes qw(time);

my $standstill_s = 1;			# shorter ones need not be in the view
my $pause_s = 0.3;				# shorter than this the clients do not tell a pause from their own
my $tolerance_s = 1;

sub new
{
	my ($class, $cluster) = @_;
	return bless {
		cluster => $cluster, tally => {}, by_kind => {}, states => {}, took => {}, recovery => {}, faults => [], n_rounds => 0,
		worst => 0, begun => time() }, $class;
}

sub begin_round
{
	my ($self) = @_;
	$self->{faults} = [];
	$self->{round_begun} = time();
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
	my %acks;					# shard => when each acknowledged operation ended
	my %acked;					# the same with those that take long of themselves
	my %tries;					# shard => [begun, ended] of each operation

	$self->{n_rounds}++;
	push @{ $self->{recovery}{$name} }, $recovery_s if defined $recovery_s;
	foreach my $op (values %{ $workload->{ops} })
	{
		$self->{tally}{ $op->{outcome} }++;
		$self->{by_kind}{ $op->{kind} }++;
		$self->{states}{ $op->{state} }++ if $op->{outcome} ne 'ack';
		push @{ $acks{ $op->{shard} } }, $op->{ended} / 1000 if $op->{outcome} eq 'ack' && $op->{kind} ne 'big';
		push @{ $acked{ $op->{shard} } }, $op->{ended} / 1000 if $op->{outcome} eq 'ack';
		push @{ $tries{ $op->{shard} } }, [ $op->{begun} / 1000, ($op->{ended} // 9e15) / 1000 ];
	}
	my $longest = 0;
	foreach my $fault (@{ $self->{faults} })
	{
		foreach my $shard (@{ $fault->{shards} })
		{
			my ($from, $took) = ($fault->{at}, 0);
			foreach my $ended (sort { $a <=> $b } @{ $acks{$shard} // [] })
			{
				next if $ended < $fault->{at};
				$took = $ended - $from if $ended - $from > $took;
				$from = $ended;
			}
			$took = time() - $from if $from == $fault->{at};
			push @{ $self->{took}{$name} }, $took;
			$longest = $took if $took > $longest;
		}
	}
	$self->_note_standstills(\%acked, \%tries, $name) unless $options{clock_moved};
	return $longest;
}

# When each shard stood still in this round, as the clients saw it; a pause: no operation ended well.
sub _note_standstills
{
	my ($self, $acks, $tries, $name) = @_;
	my %round = (name => $name, begun => $self->{round_begun}, ended => time(), stood => {}, paused => {});

	foreach my $shard (keys %$acks)
	{
		my @ended = sort { $a <=> $b } @{ $acks->{$shard} };
		my @tries = sort { $a->[0] <=> $b->[0] } @{ $tries->{$shard} };
		my @paused = grep { $_->[1] - $_->[0] >= $pause_s } map { [ @ended[ $_ - 1, $_ ] ] } 1 .. $#ended;
		my @stood;
		foreach my $pause (grep { $_->[1] > $self->{faults}[0]{at} } @paused)
		{
			my ($from, $until) = @$pause;
			# the first one that was not done when the last one before the pause was
			my ($first) = grep { $_->[1] > $from } @tries;
			$from = $first->[0] if $first && $first->[0] > $from;
			push @stood, [ $from, $until ] if $until - $from >= $standstill_s;
		}
		$round{stood}{$shard} = \@stood;
		$round{paused}{$shard} = [ [ 0, $ended[0] ], @paused, [ $ended[-1], 9e15 ] ];
	}
	push @{ $self->{rounds} }, \%round;
	return;
}

# Seconds in a window that lie in any of some intervals, and in none of others.
sub _seconds_only_in
{
	my ($from, $until, $intervals, $others) = @_;
	return _seconds_within($from, $until, @$intervals, @$others) - _seconds_within($from, $until, @$others);
}

# Seconds of a window that lie in any of these intervals.
sub _seconds_within
{
	my ($from, $until, @intervals) = @_;
	my ($seconds, $reached) = (0, $from);

	foreach my $i (sort { $a->[0] <=> $b->[0] } @intervals)
	{
		my $begin = $i->[0] > $reached ? $i->[0] : $reached;
		my $end = $i->[1] < $until ? $i->[1] : $until;
		next if $end <= $begin;
		$seconds += $end - $begin;
		$reached = $end;
	}
	return $seconds;
}

# Those of the intervals that lie in a round, as text, in seconds since its begin.
sub _intervals
{
	my ($round, @intervals) = @_;
	return join '', map { sprintf ' [%.1f to %.1f%s]', $_->[0] - $round->{begun}, $_->[1] - $round->{begun}, defined $_->[2] ? ", $_->[2]" : '' }
	  sort { $a->[0] <=> $b->[0] } grep { $_->[1] > $round->{begun} && $_->[0] < $round->{ended} } @intervals;
}

# compare: at the end, when all nodes have told each other what they noticed: for each round and shard the seconds
# that clients saw it stand still, beside those in the incidents and stops of which payshard.availability is made.
sub compare
{
	my ($self) = @_;
	my (%down, %why);
	my $c = $self->{cluster};
	my ($status, $out) = $c->try_sql($c->any, <<'SQL');
SELECT s, extract(epoch FROM failed), extract(epoch FROM greatest(failed, coalesce(until, now()))), kind || ' of ' || node FROM (
	SELECT s, failed, at AS until, kind, node FROM payshard.incidents, unnest(shards, opened) u(s, at)
		WHERE kind NOT IN ('rebuild', 'held', 'failing', 'no lease', 'frozen')
	UNION ALL SELECT s, failed, at, kind, node FROM payshard.incidents, unnest(paused, went_on) u(s, at) WHERE kind <> 'rebuild'
	UNION ALL SELECT shard, since, until, kind, node FROM payshard.stops) i
SQL
	return if $status != 0;
	# to the log of the test, for who wants to know why
	print $c->sql($c->any, 'TABLE payshard.incidents'), "\n", $c->sql($c->any, 'SELECT epoch, at, kind, node, shards, detail, reason, observer '
		  . 'FROM payshard.events ORDER BY at DESC LIMIT 2000'), "\n";
	push @{ $down{ $_->[0] } }, [ @$_[ 1 .. 3 ] ] foreach map { [ split /\|/ ] } split /\n/, $out;
	foreach my $round (@{ $self->{rounds} })
	{
		my $sum = $self->{by_name}{ $round->{name} } //= { n => 0, unequal => 0, stood => 0, said => 0 };
		foreach my $shard (keys %{ $round->{stood} })
		{
			my $stood = _seconds_within($round->{begun}, $round->{ended}, @{ $round->{stood}{$shard} });
			my $said = _seconds_within($round->{begun}, $round->{ended}, @{ $down{$shard} // [] });
			my @window = @$round{qw(begun ended)};
			my $apart = _seconds_only_in(@window, $round->{stood}{$shard}, $down{$shard} // [])
			  + _seconds_only_in(@window, $down{$shard} // [], $round->{paused}{$shard});
			$sum->{n}++;
			$sum->{unequal}++ if $apart > $tolerance_s;
			$sum->{stood} += $stood;
			$sum->{said} += $said;
			$self->{worst} = $apart if $apart > $self->{worst};
			print sprintf("differs: %s at %.1f, shard %d: clients %.1f s%s; availability %.1f s%s\n", $round->{name}, $round->{begun}, $shard,
				$stood, _intervals($round, @{ $round->{stood}{$shard} }), $said, _intervals($round, @{ $down{$shard} // [] }))
			  if $apart > $tolerance_s;
		}
	}
	return;
}

sub _comparison
{
	my ($self) = @_;
	my $by_name = $self->{by_name} // return "not compared\n";
	my %total = (n => 0, unequal => 0);
	my $text = '';

	foreach my $name (sort keys %$by_name)
	{
		my $sum = $by_name->{$name};
		$total{$_} += $sum->{$_} foreach keys %total;
		$text .= sprintf "  %-28s %d of %d apart; shard seconds down: clients %.1f, availability %.1f\n", $name, @$sum{qw(unequal n stood said)} if $sum->{unequal};
	}
	return sprintf("%d of %d (shard, round) more than %d s apart, worst %.1f s\n", $total{unequal}, $total{n}, $tolerance_s, $self->{worst}) . $text;
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
	my $leftover_s = $check->{leftover_s} // [];
	$text .= sprintf "nothing prepared, undecided or unapplied after (p50 / p99 / max, s): %s; %d of %d rounds took more than 10 s\n",
	  _figures(@$leftover_s), scalar(grep { $_ > 10 } @$leftover_s), scalar(@$leftover_s) if @$leftover_s;
	$text .= "down by the clients' logs beside payshard.availability: " . $self->_comparison;
	$text .= "other violations: $check->{other}\n" if $check->{other};
	return $text;
}

1;
