# PayshardMemory.pm
#		How much memory of their own do the processes of a cluster's nodes take?
#
#	my $m = PayshardMemory->new($cluster);
#	$m->start;
#	...
#	my $peak = $m->stop;			# { 1 => { total => MB, 'payshard apply' => MB, ... }, 2 => ... }
#
# Memory of its own is RssAnon of /proc/PID/status: neither shared memory nor files.
# A child looks at all processes again and again; what it reports is, for each node,
# the largest sum that it saw less the sum at start, and the largest growth of each
# kind of process.
package PayshardMemory;

use strict;
use warnings;
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(usleep);

my $look_us = 10_000;

sub new
{
	my ($class, $cluster) = @_;
	return bless { cluster => $cluster, dir => PostgreSQL::Test::Utils::tempdir() }, $class;
}

# RssAnon in kB and the title of a process; () when it is gone.
sub _look
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/status" or return;
	my ($kb) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$file>;
	return unless defined $kb;
	open $file, '<', "/proc/$pid/cmdline" or return;
	my $title = <$file> // '';
	return ($kb, $title =~ /(payshard \w+)/ ? $1 : $title =~ /\[local\]/ ? 'session' : $title =~ /127\.0\.0\.1/ ? 'peer' : 'other');
}

# { node => { pid => [kB, kind] } }
sub _look_all
{
	my ($self) = @_;
	my %seen;
	foreach my $i (1 .. $self->{cluster}{nodes})
	{
		foreach my $pid ($self->{cluster}->pids($i))
		{
			my @found = _look($pid);
			$seen{$i}{$pid} = \@found if @found;
		}
	}
	return \%seen;
}

sub start
{
	my ($self) = @_;
	my $before = $self->_look_all;
	$self->{stop} = "$self->{dir}/stop";
	unlink $self->{stop};
	$self->{pid} = open($self->{pipe}, '-|') // die "fork: $!";
	return if $self->{pid};
	my %peak;
	while (!-e $self->{stop} && getppid() != 1)
	{
		my $now = $self->_look_all;
		foreach my $i (keys %$now)
		{
			my $sum = 0;
			while (my ($pid, $found) = each %{ $now->{$i} })
			{
				my $grown = $found->[0] - ($before->{$i}{$pid} ? $before->{$i}{$pid}[0] : 0);
				$sum += $grown;
				$peak{$i}{ $found->[1] } = $grown if $grown > ($peak{$i}{ $found->[1] } // 0);
			}
			$peak{$i}{total} = $sum if $sum > ($peak{$i}{total} // 0);
		}
		usleep($look_us);
	}
	foreach my $i (keys %peak)
	{
		print "$i\t$_\t$peak{$i}{$_}\n" foreach keys %{ $peak{$i} };
	}
	close STDOUT;
	POSIX::_exit(0);
}

sub stop
{
	my ($self) = @_;
	my %peak;
	open my $file, '>', $self->{stop} or die "$self->{stop}: $!";
	close $file;
	my $pipe = $self->{pipe};
	while (my $line = <$pipe>)
	{
		my ($i, $kind, $kb) = $line =~ /^(\d+)\t(.*)\t(-?\d+)$/ or next;
		$peak{$i}{$kind} = int($kb / 1024 + 0.5);
	}
	close $pipe;
	return \%peak;
}

# As text, one line for each node.
sub show
{
	my ($peak) = @_;
	return join '', map {
		my $node = $peak->{$_};
		"node $_: $node->{total} MB (" . join(', ', map { "$_ $node->{$_}" } sort { $node->{$b} <=> $node->{$a} } grep { $_ ne 'total' && $node->{$_} > 0 } keys %$node) . ")\n"
	} sort keys %$peak;
}

1;
