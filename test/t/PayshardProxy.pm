# PayshardProxy.pm
#		A network between the nodes of a cluster that can be cut: a small TCP proxy
#		in a process of its own, one port for each ordered pair of nodes.
#
#	my $net = PayshardProxy->new($cluster);		# nodes reach each other through it from now on
#	$net->cut(1, 2);							# nothing passes between 1 and 2
#	$net->cut_way(1, 2);						# nothing of 1 reaches 2; 2 still reaches 1
#	$net->isolate(1);							# from all the others
#	$net->damage(1, 2, 500, 7);				# flips bits in what the sender of 1 and node 2 say
#	$net->heal;
#
# A cut is silent: bytes wait, connections stay, new ones are never answered.  When it is
# healed the bytes that waited pass, and connections that were begun meanwhile are closed.
# Damage is to the stream of journal entries and its answers only, in both directions: what
# PostgreSQL's own protocol carries for clients has no checksum to be found out by.
# Clients of the test are not affected: they come through sockets.
package PayshardProxy;

use strict;
use warnings;
use Carp;
use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);
use Test::More;

sub new
{
	my ($class, $cluster) = @_;
	my $n = $cluster->{nodes};
	my (%listen, %port);

	foreach my $i (1 .. $n)
	{
		foreach my $j (grep { $_ != $i } 1 .. $n)
		{
			my $socket = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', Proto => 'tcp')
			  or croak "proxy: $@";
			$listen{"$i $j"} = $socket;
			$port{"$i $j"} = $socket->sockport;
		}
	}
	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";
	$_->autoflush(1) foreach $ours, $theirs;
	my %target = map { $_ => $cluster->node($_)->port } 1 .. $n;
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		close $ours;
		$SIG{PIPE} = 'IGNORE';
		eval { _serve(\%listen, \%target, $theirs); 1 } or print STDERR "proxy: $@";
		POSIX::_exit(0);
	}
	close $theirs;
	close $_ foreach values %listen;
	my $self = bless { cluster => $cluster, control => $ours, pid => $pid, n => $n }, $class;
	$self->_install(\%port);
	return $self;
}

# Every node reaches the others through its own ports; what is connected already is
# ended, and connects again.
sub _install
{
	my ($self, $port) = @_;
	my $c = $self->{cluster};

	foreach my $link (keys %$port)
	{
		my ($i, $j) = split / /, $link;
		$c->sql($i, "ALTER SERVER payshard_n$j OPTIONS (SET port '$port->{$link}')");
	}
	foreach my $i (1 .. $self->{n})
	{
		$c->sql($i, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
			  . "WHERE application_name LIKE 'payshard %' AND backend_type = 'client backend' AND pid <> pg_backend_pid()");
	}
	return;
}

# One command to the proxy; returns when it is done.
sub _order
{
	my ($self, $order) = @_;
	my $control = $self->{control};

	print $control "$order\n";
	my $answer = <$control> // croak 'the proxy is gone';
	croak "proxy: $answer" unless $answer eq "ok\n";
	return;
}

sub cut_way
{
	my ($self, $from, $to) = @_;
	note("cutting the way from node $from to node $to");
	return $self->_order("cut $from $to");
}

sub cut
{
	my ($self, $a, $b) = @_;
	$self->cut_way($a, $b);
	return $self->cut_way($b, $a);
}

sub isolate
{
	my ($self, $i) = @_;
	$self->cut($i, $_) foreach grep { $_ != $i } 1 .. $self->{n};
	return;
}

# damage(i, j, bytes, seed): of the connections of node i's sender to node j, one bit in about
# so many bytes is flipped, the same ones for the same seed and bytes.
sub damage
{
	my ($self, $i, $j, $bytes, $seed) = @_;
	note("damaging one bit in about $bytes bytes between the sender of node $i and node $j");
	return $self->_order("damage $i $j $bytes $seed");
}

# How many bits have been flipped so far.
sub n_damaged
{
	my ($self) = @_;
	my $control = $self->{control};
	print $control "count\n";
	my $answer = <$control> // croak 'the proxy is gone';
	chomp $answer;
	return $answer;
}

sub heal
{
	my ($self) = @_;
	note('healing all cuts');
	return $self->_order('heal');
}

sub DESTROY
{
	my ($self) = @_;
	local $?;
	return unless $self->{pid};
	close $self->{control};
	waitpid $self->{pid}, 0;
	return;
}

# ------------------------------------------------------- the proxy's process

# Two sides of a connection are two hashes, each { fh, peer, from, to, out }: what is
# read at one side goes from node `from` to node `to`, into the `out` of the other.
my (%side, %cut, @held);
my (%damage, $random, $n_damaged);

sub _is_cut { my ($from, $to) = @_; return $cut{"$from $to"}; }

sub _close
{
	my ($side) = @_;
	foreach my $s ($side, $side->{peer})
	{
		next unless defined $s->{fh};
		delete $side{ fileno $s->{fh} };
		close $s->{fh};
		undef $s->{fh};
	}
	return;
}

sub _accept
{
	my ($listener, $link, $target) = @_;
	my ($i, $j) = split / /, $link;
	my $client = $listener->accept or return;

	# the handshake needs both ways
	if (_is_cut($i, $j) || _is_cut($j, $i))
	{
		push @held, $client;
		return;
	}
	my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $target->{$j}, Proto => 'tcp');
	if (!$server)
	{
		# refused, as far as one can pass that on
		setsockopt($client, Socket::SOL_SOCKET(), Socket::SO_LINGER(), pack('ii', 1, 0));
		close $client;
		return;
	}
	my %connection = (link => $link, begin => '', is_sender => 0);
	my %there = (fh => $client, from => $i, to => $j, out => '', connection => \%connection);
	my %back = (fh => $server, from => $j, to => $i, out => '', connection => \%connection);
	$there{peer} = \%back;
	$back{peer} = \%there;
	$_->blocking(0) foreach $client, $server;
	$side{ fileno $client } = \%there;
	$side{ fileno $server } = \%back;
	return;
}

# A number below n, of a generator of our own: the same for the same seed.
sub _random
{
	my ($n) = @_;
	$random = ($random * 1103515245 + 12345) % 2147483648;
	return int($random / 2147483648 * $n);
}

# Flips bits in the last bytes of a buffer, if this is a sender's connection.
sub _damage
{
	my ($side, $got) = @_;
	my $connection = $side->{connection};
	my $buffer = \$side->{peer}{out};

	if (!$connection->{is_sender})
	{
		# its startup packet says what it is, and passes as it is
		$connection->{begin} .= substr($$buffer, -$got) if length $connection->{begin} < 4096;
		$connection->{is_sender} = $connection->{begin} =~ /payshard sender/;
		return;
	}
	my $one_in = $damage{ $connection->{link} } // return;
	foreach my $i (1 .. $got)
	{
		next unless _random($one_in) == 0;
		substr($$buffer, -$i, 1) ^= chr(1 << _random(8));
		$n_damaged++;
	}
	return;
}

# Takes in what has come at one side.
sub _read
{
	my ($side) = @_;
	my $got = sysread $side->{fh}, $side->{peer}{out}, 65536, length $side->{peer}{out};

	return if !defined $got && ($!{EAGAIN} || $!{EINTR});
	_damage($side, $got) if $got;
	_write($side->{peer}) if $got;
	_close($side) unless $got;
	return;
}

sub _write
{
	my ($side) = @_;
	my $put = syswrite $side->{fh}, $side->{out};

	return if !defined $put && ($!{EAGAIN} || $!{EINTR});
	return _close($side) unless defined $put;
	substr($side->{out}, 0, $put) = '';
	return;
}

sub _obey
{
	my ($control) = @_;
	my $order = <$control>;

	POSIX::_exit(0) unless defined $order;
	if ($order =~ /^cut (\d+) (\d+)$/) { $cut{"$1 $2"} = 1; }
	elsif ($order =~ /^damage (\d+) (\d+) (\d+) (\d+)$/)
	{
		$damage{"$1 $2"} = $3;
		$random = $4;
	}
	elsif ($order eq "count\n")
	{
		print $control(($n_damaged // 0) . "\n");
		return;
	}
	elsif ($order eq "heal\n")
	{
		%damage = ();
		%cut = ();
		close $_ foreach @held;
		@held = ();
	}
	print $control "ok\n";
	return;
}

sub _serve
{
	my ($listen, $target, $control) = @_;
	my %link_of = map { fileno($listen->{$_}) => $_ } keys %$listen;

	while (1)
	{
		my ($r, $w) = (IO::Select->new($control, values %$listen), IO::Select->new);

		foreach my $side (values %side)
		{
			$r->add($side->{fh}) if !_is_cut($side->{from}, $side->{to}) && length $side->{peer}{out} < 1_000_000;
			$w->add($side->{fh}) if length $side->{out};
		}
		my ($readable, $writable) = IO::Select->select($r, $w, undef, undef) or next;
		foreach my $fh (@{ $writable // [] })
		{
			my $side = defined fileno $fh ? $side{ fileno $fh } : undef;
			_write($side) if $side && length $side->{out};
		}
		foreach my $fh (@{ $readable // [] })
		{
			my $number = fileno $fh // next;
			if ($fh == $control) { _obey($control); }
			elsif (exists $link_of{$number}) { _accept($fh, $link_of{$number}, $target); }
			elsif (my $side = $side{$number})
			{
				_read($side) unless _is_cut($side->{from}, $side->{to});
			}
		}
	}
	return;
}

1;
