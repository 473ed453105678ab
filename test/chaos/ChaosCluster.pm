# ChaosCluster.pm
#		Where do the nodes of the chaos harness live, and through what do they reach each other?
#
#	ChaosCluster->enter;						# first of all; may start the program anew
#	my $c = ChaosCluster->new(nodes => 3);
#	$c->cut_way(1, 2); $c->heal_links;
#	$c->tell(2, fsync_us => 50_000);			# see preload.c
#	$c->fill_disk(3); $c->empty_disk(3);
#
# Where the machine lets an ordinary user make namespaces (unshare), the harness runs in
# namespaces of its own: each node has its own network, joined by a bridge, in which a way is cut
# by a route that leads nowhere and delay and loss are netem's (where the kernel has it); and
# the WAL of every node is on a small tmpfs that can be filled.  Elsewhere the nodes share the loopback and
# links go through PayshardProxy; what cannot be had there is left out, and said so.
#
# Clients of the harness come through sockets in the file system: no cut concerns them.
package ChaosCluster;

use strict;
use warnings;
use parent -norequire, 'PayshardCluster';
use Carp;
use Config;
use Fcntl qw(SEEK_SET);
use PayshardCluster;
use PayshardProxy;
use POSIX ();
use PostgreSQL::Test::Utils ();
use Test::More;

my $network = '10.77.0';
my $wal_mb = 400;
my ($machine) = $Config{archname} =~ /^([^-]+)/;
my %setns = (x86_64 => 308, aarch64 => 268);
my %unshare = (x86_64 => 272, aarch64 => 97);
my $new_net = 0x40000000;

my %word = (fsync_fails => 0, fsync_us => 1, clock_us => 2, disk_full => 3);

my $conf = <<'CONF';
restart_after_crash = on
listen_addresses = '*'
max_connections = 200
min_wal_size = 32MB
max_wal_size = 64MB
wal_keep_size = 0
log_statement = none
log_min_error_statement = panic
log_min_messages = info
log_connections = off
log_disconnections = off
log_line_prefix = '%m [%p] %b %e '
CONF

my @sandbox = qw(unshare --user --map-current-user --keep-caps --net --mount);

# Starts this program anew in namespaces, if it can have them and is not there already.
sub enter
{
	return if $ENV{CHAOS_SANDBOX} || $ENV{CHAOS_PROXY};
	my $try = 'ip link set lo up && ip link add chaos type bridge && ip route add blackhole 10.99.99.99/32 '
	  . '&& mount -t tmpfs -o size=1m chaos /mnt && unshare --net true';
	$ENV{CHAOS_SANDBOX} = exists $setns{$machine} && system("@sandbox sh -c '$try' >/dev/null 2>&1") == 0 ? 1 : 0;
	if ($ENV{CHAOS_SANDBOX})
	{
		exec @sandbox, $^X, (map { "-I$_" } @INC), $0, @ARGV or croak "unshare: $!";
	}
	$ENV{CHAOS_PROXY} = 1;
	return;
}

# The first node that answers.
sub any
{
	my ($self) = @_;
	return (grep { ($self->try_sql($_, "SELECT 1", timeout => 10))[0] == 0 } 1 .. $self->{nodes})[0] // croak "no node answers";
}

sub has_namespaces { return $ENV{CHAOS_SANDBOX}; }

# new(%options): as PayshardCluster; conf comes after ours.
sub new
{
	my ($class, %options) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();

	PostgreSQL::Test::Utils::system_or_bail('gcc', '-O2', '-Wall', '-shared', '-fPIC', '-o', "$dir/preload.so",
		"$options{source}/preload.c", '-ldl');
	run_quietly('ip', 'link', 'set', 'lo', 'up') if has_namespaces();
	my $self = $class->SUPER::new(%options, dir => $dir, conf => $conf . ($options{conf} // ''), created => 0);
	$self->{net} = PayshardProxy->new($self) unless has_namespaces();
	return $self;
}

sub run_quietly
{
	my @command = @_;
	return system("@command >/dev/null 2>&1") == 0;
}

# ---------------------------------------------------------------- namespaces

# A network of node i's own, held by a process that does nothing; its number is the address.
sub _make_network
{
	my ($self, $i) = @_;

	pipe my $read, my $write or croak "pipe: $!";
	pipe my $ready, my $is_ready or croak "pipe: $!";
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		close $write;
		close $ready;
		POSIX::_exit(1) if syscall($unshare{$machine}, $new_net) != 0;
		syswrite $is_ready, 'x';
		sysread $read, my $end, 1;
		POSIX::_exit(0);
	}
	close $is_ready;
	sysread $ready, my $go, 1;
	open my $home, '<', '/proc/self/ns/net' or croak $!;
	open my $own, '<', "/proc/$pid/ns/net" or croak $!;
	$self->{network}[$i] = { own => $own, home => $home, keep => $write, pid => $pid };
	if ($i == 1)
	{
		run_quietly(qw(ip link add chaos type bridge)) and run_quietly(qw(ip link set chaos up)) or croak 'no bridge';
	}
	run_quietly('ip', 'link', 'add', "node$i", 'type', 'veth', 'peer', 'name', 'inner', 'netns', $pid)
	  and run_quietly('ip', 'link', 'set', "node$i", 'master', 'chaos', 'up') or croak "no link for node $i";
	$self->in_network($i, sub {
			run_quietly(qw(ip link set lo up)) and run_quietly('ip', 'addr', 'add', "$network.$i/24", 'dev', 'inner')
			  and run_quietly(qw(ip link set inner up)) or croak "no network for node $i";
		});
	return;
}

# in_network(i, sub): does it in the network of node i.
sub in_network
{
	my ($self, $i, $do) = @_;
	my $n = $self->{network}[$i] // return $do->();

	syscall($setns{$machine}, fileno $n->{own}, $new_net) == 0 or croak "setns: $!";
	my @answer = eval { $do->() };
	my $error = $@;
	syscall($setns{$machine}, fileno $n->{home}, $new_net) == 0 or croak "setns: $!";
	die $error if $error;
	return wantarray ? @answer : $answer[0];
}

# The WAL of node i on a small file system.
sub _make_small_disk
{
	my ($self, $i) = @_;
	my $disk = "$self->{dir}/wal$i";
	my $wal = $self->node($i)->data_dir . '/pg_wal';

	mkdir $disk or croak "$disk: $!";
	run_quietly('mount', '-t', 'tmpfs', '-o', "size=${wal_mb}m", 'chaos', $disk) or croak "no tmpfs at $disk";
	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', $wal, "$disk/pg_wal");
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $wal);
	symlink "$disk/pg_wal", $wal or croak "$wal: $!";
	$self->{disk}[$i] = $disk;
	return;
}

# ---------------------------------------------- as PayshardCluster, elsewhere

sub _init_server
{
	my ($self, $name) = @_;
	my $i = @{ $self->{servers} } + 1;

	$self->SUPER::_init_server($name);
	open my $file, '>', "$self->{dir}/control$i" or croak $!;
	print $file pack('q4', 0, 0, 0, 0);
	close $file or croak $!;
	return unless has_namespaces();
	$self->node($i)->append_conf('pg_hba.conf', "host all all $network.0/24 trust");
	$self->_make_network($i);
	$self->_make_small_disk($i);
	return;
}

sub conninfo
{
	my ($self, $i) = @_;
	return $self->SUPER::conninfo($i) unless has_namespaces();
	return "host=$network.$i port=" . $self->node($i)->port . ' dbname=postgres';
}

# Rules of the protocol that are off from the node's first moment on (src/node/fault.h): what is found then
# says what the checkers are worth.
sub _rules_off
{
	my ($self, $i) = @_;
	open my $file, '>', $self->node($i)->data_dir . '/payshard_fault.conf' or croak $!;
	print $file map { "$_ off 1\n" } split /[ ,]+/, $self->{rules_off};
	close $file or croak $!;
	return;
}

# Starts node i in its network, with its preloaded library; returns 0 if it does not come up.
sub start
{
	my ($self, $i, %options) = @_;
	local $ENV{LD_PRELOAD} = "$self->{dir}/preload.so";
	local $ENV{CHAOS_CONTROL} = "$self->{dir}/control$i";
	$self->_rules_off($i) if $self->{rules_off} && !$self->is_running($i);

	return $self->in_network($i, sub { return $self->SUPER::start($i, %options); });
}

# ------------------------------------------------------------------- hurting

# tell(i, fsync_fails => n, fsync_us => us, clock_us => us, disk_full => 1): see preload.c.
sub tell
{
	my ($self, $i, %values) = @_;

	open my $file, '+<', "$self->{dir}/control$i" or croak $!;
	foreach my $name (keys %values)
	{
		sysseek $file, 8 * $word{$name}, SEEK_SET or croak $!;
		syswrite $file, pack('q', $values{$name}) or croak $!;
	}
	close $file;
	return;
}

sub tell_nothing
{
	my ($self, $i) = @_;
	return $self->tell($i, map { $_ => 0 } keys %word);
}

sub cut_way
{
	my ($self, $from, $to) = @_;
	return $self->{net}->cut_way($from, $to) unless has_namespaces();
	$self->in_network($from, sub { run_quietly('ip', 'route', 'replace', 'blackhole', "$network.$to/32"); });
	return;
}

sub heal_links
{
	my ($self) = @_;
	return $self->{net}->heal unless has_namespaces();
	foreach my $i (1 .. $self->{nodes})
	{
		$self->in_network($i, sub {
				run_quietly('ip', 'route', 'del', 'blackhole', "$network.$_/32") foreach 1 .. $self->{nodes};
				run_quietly(qw(tc qdisc del dev inner root)) if $self->{netem};
			});
	}
	return;
}

# Can packets be delayed and lost here?
sub has_netem
{
	my ($self) = @_;
	return 0 unless has_namespaces();
	$self->{netem} //= $self->in_network(1, sub {
			return run_quietly(qw(tc qdisc add dev inner root netem delay 1ms)) && run_quietly(qw(tc qdisc del dev inner root)) ? 1 : 0;
		});
	return $self->{netem};
}

sub delay
{
	my ($self, $i, $ms, $loss_percent) = @_;
	$self->in_network($i, sub {
			run_quietly('tc', 'qdisc', 'replace', 'dev', 'inner', 'root', 'netem', 'delay', "${ms}ms", ($ms / 2) . 'ms',
				'loss', "$loss_percent%");
		});
	return;
}

# Fills the small disk under the WAL of node i, but for so many bytes.
sub fill_disk
{
	my ($self, $i) = @_;
	run_quietly('dd', 'if=/dev/zero', "of=$self->{disk}[$i]/filler", 'bs=64k');
	return;
}

sub empty_disk
{
	my ($self, $i) = @_;
	unlink "$self->{disk}[$i]/filler";
	return;
}

# A copy of the stopped node i's data directory and WAL, aside; and back.
sub keep_directory
{
	my ($self, $i) = @_;
	my $d = $self->node($i)->data_dir;

	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', "$d.old");
	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', $d, "$d.old");
	return unless $self->{disk}[$i];
	PostgreSQL::Test::Utils::system_or_bail('rm', '-f', "$d.old/pg_wal");
	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', "$self->{disk}[$i]/pg_wal", "$d.old/pg_wal");
	return;
}

sub restore_directory
{
	my ($self, $i) = @_;
	my $d = $self->node($i)->data_dir;

	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $d);
	PostgreSQL::Test::Utils::system_or_bail('mv', "$d.old", $d);
	return unless $self->{disk}[$i];
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', "$self->{disk}[$i]/pg_wal");
	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', "$d/pg_wal", "$self->{disk}[$i]/pg_wal");
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', "$d/pg_wal");
	symlink "$self->{disk}[$i]/pg_wal", "$d/pg_wal" or croak $!;
	return;
}

# ChaosRun says where they are.
sub show_logs { return; }

sub stop_all
{
	my ($self) = @_;
	# what hangs in a slow fsync, or spins in a full disk, must be able to end
	foreach my $i (1 .. @{ $self->{servers} })
	{
		eval { $self->tell_nothing($i) };
		$self->empty_disk($i) if $self->{disk}[$i];
	}
	$self->SUPER::stop_all;
	foreach my $i (grep { $self->{keep} && $self->{disk}[$_] } 1 .. @{ $self->{servers} })
	{
		# the small disk goes with this process
		my $wal = $self->node($i)->data_dir . '/pg_wal';
		unlink $wal;
		run_quietly('cp', '-a', "$self->{disk}[$i]/pg_wal", $wal);
	}
	run_quietly('umount', '-l', $_) foreach grep { defined } @{ $self->{disk} // [] };
	foreach my $n (grep { defined } @{ $self->{network} // [] })
	{
		kill 'KILL', $n->{pid};
		waitpid $n->{pid}, 0;
	}
	$self->{network} = [];
	return;
}

1;
