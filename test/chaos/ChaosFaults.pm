# ChaosFaults.pm
#		What is done to the nodes, in which order, and how is it undone?
#
#	my $f = ChaosFaults->new($cluster, seed => 42);
#	my @faults = $f->plan(7);			# what round 7 will do: the same for the same seed, whatever happens
#	$f->text(@faults);					# "kill9(top) + cut(n2, 3.1 s)"
#	$f->inject($_) foreach @faults;
#	$f->heal;							# everything that any fault does, undone
#
# A fault is { kind, victim, seconds, number }.  The victim is a node's number, or "top": the node that is the
# primary of most shards when the time has come.
package ChaosFaults;

use strict;
use warnings;
use Carp;
use PayshardCluster;
use Time::HiRes qw(time usleep);

my @workers = ('keeper', 'sender', 'apply', 'receiver', 'any');

# kind => { weight, seconds => [least, most] that it lasts, alone => 1: not in a pair,
#			inject => sub($self, $fault, $node) -> nodes it is about }
my %catalogue = (
	kill9 => { weight => 5, seconds => [ 1, 6 ], inject => \&_kill9 },
	power_cut => { weight => 3, seconds => [ 1, 6 ], inject => \&_power_cut },
	kill_backend => { weight => 2, seconds => [ 1, 3 ], inject => \&_kill_backend },
	kill_worker => { weight => 3, seconds => [ 1, 3 ], inject => \&_kill_worker },
	short_stop => { weight => 3, seconds => [ 0.3, 2.5 ], inject => \&_stop },
	long_stop => { weight => 3, seconds => [ 5, 12 ], inject => \&_stop },
	cut_off => { weight => 4, seconds => [ 1, 10 ], inject => \&_cut_off },
	cut_out => { weight => 2, seconds => [ 2, 9 ], inject => \&_cut_out },
	cut_in => { weight => 2, seconds => [ 2, 9 ], inject => \&_cut_in },
	cut_pair => { weight => 3, seconds => [ 2, 9 ], inject => \&_cut_pair },
	flaky_link => { weight => 3, seconds => [ 3, 8 ], alone => 1, inject => \&_flaky_link },
	delay => { weight => 2, seconds => [ 3, 8 ], inject => \&_delay,
		needs => sub { return $_[0]->has_netem ? '' : 'the kernel has no netem, or there are no namespaces'; } },
	fsync_error => { weight => 2, seconds => [ 1, 5 ], inject => \&_fsync_error },
	slow_fsync => { weight => 2, seconds => [ 3, 8 ], inject => \&_slow_fsync },
	clock_jump => { weight => 3, seconds => [ 2, 8 ], inject => \&_clock_jump },
	full_wal => { weight => 2, seconds => [ 3, 8 ], inject => \&_full_wal,
		needs => sub { return $_[0]{disk} ? '' : 'no small file system can be mounted'; } },
	full_disk => { weight => 2, seconds => [ 3, 8 ], inject => \&_full_disk },
	old_copy => { weight => 3, seconds => [ 1, 4 ], alone => 1, inject => \&_old_copy },
	shutdown => { weight => 3, seconds => [ 0.5, 5 ], inject => \&_shutdown },
);

sub new
{
	my ($class, $cluster, %options) = @_;
	my $self = bless { cluster => $cluster, count => {}, random => 0, kinds => [], %options }, $class;
	my @kinds = $options{only} ? split /[ ,]+/, $options{only} : sort keys %catalogue;

	foreach my $kind (@kinds)
	{
		my $fault = $catalogue{$kind} // croak "there is no fault \"$kind\": one of " . join(' ', sort keys %catalogue);
		my $why = $fault->{needs} ? $fault->{needs}->($cluster) : '';
		if ($why) { push @{ $self->{left_out} }, "$kind: $why"; }
		else { push @{ $self->{kinds} }, $kind; }
	}
	return $self;
}

# ------------------------------------------------------------------- planning

# A number below n, of a generator of our own: the same for the same seed, on every machine.
sub _random
{
	my ($self, $n) = @_;
	foreach (1 .. 3)
	{
		$self->{random} = ($self->{random} * 1103515245 + 12345) % 2147483648;
	}
	return int($self->{random} / 2147483648 * $n);
}

sub _draw
{
	my ($self, $is_pair) = @_;
	my @kinds = grep { !$is_pair || !$catalogue{$_}{alone} } @{ $self->{kinds} };
	my $total = 0;
	$total += $catalogue{$_}{weight} foreach @kinds;
	my $at = $self->_random($total);
	foreach my $kind (@kinds)
	{
		$at -= $catalogue{$kind}{weight};
		next if $at >= 0;
		my ($least, $most) = @{ $catalogue{$kind}{seconds} };
		my $victim = $self->_random(2) ? 'top' : 1 + $self->_random($self->{cluster}{nodes});
		return { kind => $kind, victim => $victim, seconds => $least + ($most - $least) * $self->_random(1000) / 1000,
			number => $self->_random(1_000_000) };
	}
	croak 'no fault can be had here';
}

# The faults of a round; every third one is a pair.  after: how long the second one comes after the first.
sub plan
{
	my ($self, $round) = @_;

	$self->{random} = ($self->{seed} * 7919 + $round * 104729) % 2147483648;
	my $first = $self->_draw(0);
	return ($first) if $catalogue{ $first->{kind} }{alone} || $self->_random(3) != 0;
	my $second = $self->_draw(1);
	$second->{after} = $self->_random(3000) / 1000;
	return ($first, $second);
}

sub text
{
	my ($self, @faults) = @_;
	return join ' + ', map {
		sprintf '%s(%s, %.1f s, %d%s)', $_->{kind}, $_->{victim} eq 'top' ? 'top' : "n$_->{victim}", $_->{seconds}, $_->{number},
		  defined $_->{after} ? sprintf(', %.1f s later', $_->{after}) : '' } @faults;
}

sub name { my ($self, @faults) = @_; return join '+', sort map { $_->{kind} } @faults; }

# ------------------------------------------------------------------ injecting

sub _victim
{
	my ($self, $fault) = @_;
	return $fault->{victim} if $fault->{victim} ne 'top';
	my %n = map { $_ => 0 } 1 .. $self->{cluster}{nodes};
	$n{$_}++ foreach values %{ $self->{primary_of} };
	return (sort { $n{$b} <=> $n{$a} || $a <=> $b } keys %n)[0];
}

# inject(fault, { shard => primary }): does it; { nodes => [...], at => when it began, said }.
sub inject
{
	my ($self, $fault, $primary_of) = @_;

	$self->{primary_of} = $primary_of;
	my $node = $self->_victim($fault);
	my $at = time();
	my ($said, @nodes) = $catalogue{ $fault->{kind} }{inject}->($self, $fault, $node);
	$self->{count}{ $fault->{kind} }++;
	return { nodes => [ @nodes ? @nodes : $node ], at => $at, said => $said };
}

sub _kill9
{
	my ($self, $fault, $i) = @_;
	return "n$i was down" unless $self->{cluster}->is_running($i);
	$self->{cluster}->kill9($i);
	return "n$i";
}

sub _power_cut
{
	my ($self, $fault, $i) = @_;
	return "n$i was down" unless $self->{cluster}->is_running($i);
	$self->{cluster}->kill9($i, all => 1);
	return "n$i";
}

# Processes of node i: title => pid, as ps shows them.
sub _titles
{
	my ($self, $i) = @_;
	my %title;
	foreach my $pid ($self->{cluster}->pids($i))
	{
		open my $file, '<', "/proc/$pid/cmdline" or next;
		my $line = <$file> // next;
		$line =~ s/\0+$//;
		$title{$pid} = $line if $line =~ /^postgres: /;
	}
	return %title;
}

# kill -9 of one process whose title matches; the server restarts in place.
sub _kill_one
{
	my ($self, $fault, $i, $pattern) = @_;
	my %title = $self->_titles($i);
	my @pids = sort { $a <=> $b } grep { $title{$_} =~ $pattern } keys %title;

	return "n$i: none" unless @pids;
	my $pid = $pids[ $fault->{number} % @pids ];
	kill 'KILL', $pid;
	return "n$i: $title{$pid}";
}

sub _kill_backend { my ($self, $fault, $i) = @_; return $self->_kill_one($fault, $i, qr/\[local\]/); }

sub _kill_worker
{
	my ($self, $fault, $i) = @_;
	my $which = $workers[ $fault->{number} % @workers ];
	$which = '' if $which eq 'any';
	return $self->_kill_one($fault, $i, $which eq 'receiver' ? qr/postgres: \S+ \S+ [\d.]+\(\d+\)/ : qr/payshard.*$which/);
}

sub _stop
{
	my ($self, $fault, $i) = @_;
	return "n$i was down" unless $self->{cluster}->is_running($i);
	$self->{cluster}->pause($i);
	return "n$i";
}

sub _others { my ($self, $i) = @_; return grep { $_ != $i } 1 .. $self->{cluster}{nodes}; }

sub _cut_off
{
	my ($self, $fault, $i) = @_;
	foreach my $j ($self->_others($i))
	{
		$self->{cluster}->cut_way($i, $j);
		$self->{cluster}->cut_way($j, $i);
	}
	return "n$i from all";
}

sub _cut_out
{
	my ($self, $fault, $i) = @_;
	$self->{cluster}->cut_way($i, $_) foreach $self->_others($i);
	return "nothing of n$i reaches the others";
}

sub _cut_in
{
	my ($self, $fault, $i) = @_;
	$self->{cluster}->cut_way($_, $i) foreach $self->_others($i);
	return "nothing of the others reaches n$i";
}

sub _cut_pair
{
	my ($self, $fault, $i) = @_;
	my @others = $self->_others($i);
	my $j = $others[ $fault->{number} % @others ];
	$self->{cluster}->cut_way($i, $j);
	$self->{cluster}->cut_way($j, $i);
	return ("n$i from n$j", $i, $j);
}

# Fast shutdown under load; one that does not end is waited for in heal.
sub _shutdown
{
	my ($self, $fault, $i) = @_;
	my $c = $self->{cluster};
	my ($postmaster) = $c->pids($i);

	return "n$i was down" unless $c->is_running($i);
	$self->{is_stopping}{$i} = 1;
	kill 'INT', $postmaster;
	return "n$i";
}

# Its links to the others come and go, one way or both; as packets that are lost, with luck.
sub _flaky_link
{
	my ($self, $fault, $i) = @_;
	my $c = $self->{cluster};
	my $end = time() + $fault->{seconds};

	my $random = $fault->{number};
	while (time() < $end)
	{
		foreach my $j ($self->_others($i))
		{
			$random = ($random * 1103515245 + 12345) % 2147483648;
			$c->cut_way($random & 0x10000 ? ($i, $j) : ($j, $i)) if $random & 0x20000;
		}
		usleep(50_000 + ($random >> 8) % 400_000);
		$c->heal_links;
		usleep(50_000 + ($random >> 4) % 300_000);
	}
	return "n$i";
}

sub _delay
{
	my ($self, $fault, $i) = @_;
	my $ms = 5 + $fault->{number} % 200;
	my $percent = $fault->{number} % 7;
	$self->{cluster}->delay($i, $ms, $percent);
	return "n$i: $ms ms, $percent %";
}

# Every so many-th flush fails: a server that is told so must not go on.
sub _fsync_error
{
	my ($self, $fault, $i) = @_;
	my $one_in = 1 + $fault->{number} % 20;
	$self->{cluster}->tell($i, fsync_fails => $one_in);
	return "n$i: one in $one_in";
}

sub _slow_fsync
{
	my ($self, $fault, $i) = @_;
	my $ms = 10 + $fault->{number} % 700;
	$self->{cluster}->tell($i, fsync_us => $ms * 1000);
	return "n$i: $ms ms";
}

# Seconds, minutes or hours, either way.
sub _clock_jump
{
	my ($self, $fault, $i) = @_;
	my $s = (2, 60, 3600, 86400)[ $fault->{number} % 4 ] * (1 + int($fault->{number} / 4) % 9);
	$s = -$s if $fault->{number} & 0x100;
	$self->{cluster}->tell($i, clock_us => $s * 1_000_000);
	return "n$i: $s s";
}

sub _full_wal
{
	my ($self, $fault, $i) = @_;
	$self->{cluster}->fill_disk($i);
	return "n$i";
}

sub _full_disk
{
	my ($self, $fault, $i) = @_;
	$self->{cluster}->tell($i, disk_full => 1);
	return "n$i";
}

# It wakes up in a copy of its data directory that was made while it stood still, some seconds ago.
sub _old_copy
{
	my ($self, $fault, $i) = @_;
	my $c = $self->{cluster};

	$c->stop($i);
	$c->keep_directory($i);
	$c->start($i);
	usleep($fault->{seconds} * 1_000_000);
	$c->kill9($i, all => 1);
	usleep($fault->{number} % 5 * 1_000_000);
	$c->restore_directory($i);
	return "n$i";
}

# -------------------------------------------------------------------- healing

# All that any fault does is undone; all nodes run.  Dies when one does not start.
sub heal
{
	my ($self) = @_;
	my $c = $self->{cluster};

	$c->heal_links;
	foreach my $i (1 .. $c->{nodes})
	{
		$c->tell_nothing($i);
		$c->empty_disk($i) if $c->{disk}[$i];
		$c->resume($i);
	}
	foreach my $i (1 .. $c->{nodes})
	{
		# a shutdown under way ends first
		$c->wait_down($i, 120) if $self->{is_stopping}{$i};
		$c->start($i);
	}
	$self->{is_stopping} = {};
	return;
}

1;
