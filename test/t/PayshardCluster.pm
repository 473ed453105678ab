# PayshardCluster.pm
#		A cluster of real servers for the tests in test/t, on top of
#		PostgreSQL::Test::Cluster.
#
#	my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16);
#	$c->sql(1, 'SELECT 1');
#	$c->kill9(2);
#	$c->start(2);
#	$c->wait_all_in_sync;
#	$c->assert_copies_equal;
#
# Nodes are numbered from 1 and named n1, n2, ...; peers reach each other over
# TCP on 127.0.0.1, the test itself comes through a socket.  Nothing here
# sleeps for a fixed time: whatever takes time is polled until a deadline.
#
# A node's processes are those whose working directory is its data directory:
# every process of a server moves there, and stays there when its postmaster is gone.
package PayshardCluster;

use strict;
use warnings;
use Carp;
use Config;
use Cwd ();
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

our @all;						# every cluster of this test, for END
my %seen_pid;					# every postmaster that was ours

# A killed postmaster would be a zombie until the machine's first process cares
# for it, seconds later in some containers; as long, PostgreSQL takes the pid file for
# that of a living server.  So the orphans of this test come to the test, which
# reaps them: prctl(PR_SET_CHILD_SUBREAPER).
my %prctl = (x86_64 => 157, aarch64 => 167);
my ($machine) = $Config{archname} =~ /^([^-]+)/;
syscall($prctl{$machine}, 36, 1, 0, 0, 0) if exists $prctl{$machine};

my $poll_us = 50_000;
my $log_lines_shown = 60;

# Dynamic shared memory lies in the data directory: a killed node then leaves
# nothing in /dev/shm.
my $base_conf = <<'CONF';
listen_addresses = '127.0.0.1'
shared_preload_libraries = 'payshard'
payshard.database = 'postgres'
max_prepared_transactions = 100
max_worker_processes = 32
max_connections = 100
dynamic_shared_memory_type = mmap
shared_buffers = 32MB
fsync = on
jit = off
log_statement = ddl
log_min_messages = info
CONF

# A primary that is lost stays lost, and who asks for it is told at once.
my $by_hand_conf = <<'CONF';
payshard.auto_failover = off
payshard.lease_timeout = 0
payshard.failover_wait = 0
CONF

# new(%options): starts the servers and, unless create => 0, makes them one cluster.
#	nodes     how many (3)
#	replicas  copies of each shard (2)
#	shards    (16)
#	witness   [numbers of nodes with weight 0]; not node 1
#	zones     [zone of each node] (z1, z2, ...)
#	auto      1: leases and automatic failover as payshard's defaults have them;
#	          otherwise they are off, unless PAYSHARD_TEST_AUTO=1 is in the environment
#	conf      lines for every postgresql.conf, after ours
#	create    0: CREATE EXTENSION only, no cluster
#	extension 0: not even that
sub new
{
	my ($class, %options) = @_;
	my %self = (
		nodes => 3, replicas => 2, shards => 16, witness => [], conf => '',
		create => 1, extension => 1, auto => $ENV{PAYSHARD_TEST_AUTO}, %options, servers => []);
	my $self = bless \%self, $class;

	push @all, $self;
	my $prefix = 'c' . scalar(@all);
	$self->_init_server("${prefix}n$_") foreach 1 .. $self->{nodes};
	$self->start($_) foreach 1 .. $self->{nodes};
	return $self unless $self->{extension};
	$self->sql($_, 'CREATE EXTENSION payshard') foreach 1 .. $self->{nodes};
	$self->create_cluster if $self->{create};
	return $self;
}

sub _init_server
{
	my ($self, $name) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);

	$server->init;
	$server->append_conf('postgresql.conf', $base_conf . ($self->{auto} ? '' : $by_hand_conf) . $self->{conf});
	push @{ $self->{servers} }, $server;
	return;
}

# The first node makes the cluster, then takes in the others.
sub create_cluster
{
	my ($self) = @_;
	my %is_witness = map { $_ => 1 } @{ $self->{witness} };

	$self->sql(1, sprintf(
		"SELECT payshard.create_cluster('pay', shards => %d, replicas => %d, node => 'n1', conninfo => %s)",
		$self->{shards}, $self->{replicas}, quote($self->conninfo(1))));
	$self->wait_started(1);
	foreach my $i (2 .. $self->{nodes})
	{
		$self->add_node($i, weight => $is_witness{$i} ? 0 : 1);
	}
	return;
}

# Waits until node i has taken its incarnation: it serves from then on.
sub wait_started
{
	my ($self, $i, $seconds) = @_;
	return $self->wait_sql($i, 'SELECT payshard.incarnation() <> 0', $seconds);
}

# add_node(i, weight => 1, zone => 'z', by => 1): node "by" takes node i in.
sub add_node
{
	my ($self, $i, %options) = @_;
	my $zone = $options{zone} // ($self->{zones} ? $self->{zones}[ $i - 1 ] : "z$i");

	return $self->sql($options{by} // 1, sprintf(
		'SELECT payshard.add_node(%s, %s, zone => %s, weight => %s)',
		quote("n$i"), quote($self->conninfo($i)), quote($zone), $options{weight} // 1));
}

# Starts one more server (not yet a member) and returns its number.
sub new_server
{
	my ($self) = @_;
	my $i = ++$self->{nodes};
	my ($prefix) = $self->node(1)->name =~ /^(c\d+)n/;

	$self->_init_server("${prefix}n$i");
	$self->start($i);
	$self->sql($i, 'CREATE EXTENSION payshard');
	return $i;
}

# ------------------------------------------------------------------ asking

# The PostgreSQL::Test::Cluster object of node i.
sub node
{
	my ($self, $i) = @_;
	return $self->{servers}[ $i - 1 ] // croak "there is no node $i";
}

sub conninfo
{
	my ($self, $i) = @_;
	return 'host=127.0.0.1 port=' . $self->node($i)->port . ' dbname=postgres';
}

# sql(i, query): the answer as psql -At prints it; dies on an error.
sub sql
{
	my ($self, $i, $query) = @_;
	return $self->node($i)->safe_psql('postgres', $query);
}

# try_sql(i, query, timeout => s): (exit status of psql, stdout, stderr).  The
# status is 0, 1-3 as psql's, or 124 when the time (60 s) ran out.  Messages
# carry their SQLSTATE.
sub try_sql
{
	my ($self, $i, $query, %options) = @_;
	my ($out, $err, $timed_out) = ('', '', 0);

	my $status = $self->node($i)->psql(
		'postgres', $query,
		stdout => \$out, stderr => \$err,
		timeout => $options{timeout} // 60, timed_out => \$timed_out,
		on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return ($timed_out ? 124 : $status, $out // '', $err // '');
}

# quote(text): as an SQL literal
sub quote
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

# ----------------------------------------------------------------- waiting

# wait_until(what, seconds, sub): polls until the sub is true and returns what it
# returned; after the deadline dies with what was waited for and, if the sub returns
# (false, text) in list context, the last text.
sub wait_until
{
	my ($self, $what, $seconds, $is_reached) = @_;
	my $deadline = time() + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while (1)
	{
		my ($reached, $text) = $is_reached->();
		return $reached if $reached;
		croak "gave up waiting for $what after $seconds s" . (defined $text ? "; last seen:\n$text" : '')
		  if time() >= $deadline;
		usleep($poll_us);
	}
}

# wait_sql(i, query, seconds, wanted): polls until the answer is wanted ('t').
sub wait_sql
{
	my ($self, $i, $query, $seconds, $wanted) = @_;
	$wanted //= 't';
	$seconds //= 60;
	return $self->wait_until("\"$query\" on node $i to answer \"$wanted\"", $seconds, sub {
			my ($status, $out, $err) = $self->try_sql($i, $query, timeout => $seconds);
			return ($status == 0 && $out eq $wanted, $out . $err);
		});
}

# wait_all_in_sync(seconds, i): every placement, as node i (the first that runs)
# sees it, is in sync.
sub wait_all_in_sync
{
	my ($self, $seconds, $i) = @_;
	$seconds //= 60;
	$i //= (grep { $self->is_running($_) } 1 .. $self->{nodes})[0] // croak 'no node is running';
	return $self->wait_until('all placements to be in sync', $seconds, sub {
			my ($status, $out, $err) = $self->try_sql($i,
				'SELECT state, count(*) FROM payshard.placements GROUP BY 1 ORDER BY 1',
				timeout => $seconds);
			return ($status == 0 && $out =~ /^in_sync\|\d+$/, $out . $err);
		});
}

# wait_log(i, pattern, seconds, offset): the position behind the match in the
# node's log; offset (log_size) is where to begin.
sub wait_log
{
	my ($self, $i, $pattern, $seconds, $offset) = @_;
	$offset //= 0;
	return $self->wait_until("$pattern in the log of node $i", $seconds // 60, sub {
			my $log = PostgreSQL::Test::Utils::slurp_file($self->node($i)->logfile, $offset);
			return $log =~ /$pattern/ ? $offset + $+[0] : 0;
		});
}

sub log_size
{
	my ($self, $i) = @_;
	return -s $self->node($i)->logfile // 0;
}

# --------------------------------------------------- processes of one node

# State letter of a process ("R", "S", "T" ...), or '' when it is gone.
sub _process_state
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return '';
	my $line = <$file> // '';
	return $line =~ /\) ([A-Z])/i && $1 ne 'Z' && $1 ne 'X' ? $1 : '';
}

# Process ids of node i, its postmaster first.
sub pids
{
	my ($self, $i) = @_;
	my $directory = Cwd::realpath($self->node($i)->data_dir);
	my $postmaster = $self->_postmaster($i) // 0;
	my @found;

	foreach my $path (glob('/proc/[0-9]*/cwd'))
	{
		my $cwd = readlink $path // next;
		next unless $cwd eq $directory;
		my ($pid) = $path =~ m{/proc/(\d+)/};
		push @found, $pid if _process_state($pid) ne '';
	}
	return sort { ($b == $postmaster) <=> ($a == $postmaster) || $a <=> $b } @found;
}

sub _postmaster
{
	my ($self, $i) = @_;
	open my $file, '<', $self->node($i)->data_dir . '/postmaster.pid' or return;
	my $line = <$file> // return;
	return unless $line =~ /^(\d+)/;
	my $pid = $1;
	$seen_pid{$pid} = 1;
	waitpid($pid, WNOHANG);
	return _process_state($pid) ne '' ? $pid : undef;
}

# Has node i a postmaster?  (A paused one counts.)
sub is_running
{
	my ($self, $i) = @_;
	my $postmaster = $self->_postmaster($i) // return 0;
	return scalar(grep { $_ == $postmaster } $self->pids($i));
}

# Of postmasters that were seen: those that are zombies, or amid their end, when a process has no
# directory any more.  A new postmaster would take them for alive.
sub _ending
{
	my @ending;
	foreach my $pid (keys %seen_pid)
	{
		waitpid($pid, WNOHANG);
		if (!-e "/proc/$pid") { delete $seen_pid{$pid}; }
		elsif (_process_state($pid) eq '' || !defined readlink "/proc/$pid/cwd") { push @ending, $pid; }
	}
	return @ending;
}

# Waits until no process of node i is left, as after an armed crash, and no zombie.
sub wait_down
{
	my ($self, $i, $seconds) = @_;
	$self->wait_until("node $i to be gone", $seconds // 60, sub {
			my @left = ($self->pids($i), _ending());
			return (!@left, "processes @left");
		});
	$self->node($i)->{_pid} = undef;
	return;
}

# kill9(i): SIGKILL to the postmaster, as the kernel would; its children notice and go,
# and this waits for it.  kill9(i, all => 1): to all processes at once, as a power cut.
sub kill9
{
	my ($self, $i, %options) = @_;
	my @pids = $self->pids($i);

	croak "node $i is not running" unless @pids;
	note("kill -9 of node $i");
	kill 'KILL', $options{all} ? @pids : $pids[0];
	# Children of a paused node would never notice.
	kill 'CONT', @pids;
	eval { $self->wait_down($i, 10); 1 } or do
	{
		diag("node $i: children outlived their postmaster by 10 s, killing them: ", join(' ', $self->pids($i)));
		kill 'KILL', $self->pids($i);
		$self->wait_down($i, 10);
	};
	return;
}

# start(i): starts it if it does not run, and waits until it answers.  Dies with the
# log if it does not come up; start(i, fail_ok => 1) returns 0 instead.
sub start
{
	my ($self, $i, %options) = @_;
	return 1 if $self->is_running($i);
	$self->wait_down($i);
	return 1 if $self->node($i)->start(fail_ok => 1);
	return 0 if $options{fail_ok};
	croak "node $i did not start";
}

# stop(i, mode): fast unless said otherwise; nothing to do if it is down.
sub stop
{
	my ($self, $i, $mode) = @_;
	$self->node($i)->stop($mode // 'fast') if $self->is_running($i);
	$self->wait_down($i);
	return;
}

sub restart
{
	my ($self, $i, $mode) = @_;
	$self->stop($i, $mode);
	return $self->start($i);
}

# pause(i): SIGSTOP to all processes of the node; returns when all of them stand
# still.  The postmaster first, so that no process is born behind our back.
sub pause
{
	my ($self, $i) = @_;
	note("pausing node $i");
	$self->wait_until("node $i to stand still", 10, sub {
			my @moving = grep { _process_state($_) !~ /^[Tt]?$/ } $self->pids($i);
			kill 'STOP', $_ foreach @moving;
			return !@moving;
		});
	return;
}

sub resume
{
	my ($self, $i) = @_;
	note("resuming node $i");
	kill 'CONT', reverse $self->pids($i);
	return;
}

# ----------------------------------------------------------- payshard's own

# arm_fault(i, point, action, count): the count-th passage (1: the next) of the point
# on node i does the action (src/node/fault.h).  Needs the test-only extension of
# test/fault.  After a panic the node stays down: PostgreSQL::Test::Cluster sets
# restart_after_crash = off; wait_down and start it.
sub arm_fault
{
	my ($self, $i, $point, $action, $count) = @_;
	return $self->sql($i, sprintf(
		"SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS payshard_fault;\n"
		  . 'SELECT payshard_fault.arm(%s, %s, %d)',
		quote($point), quote($action), $count // 1));
}

# One test point: the copies of every shard have the same digest, as node i sees it.  Waits
# until all can be compared: a node may just have started.
sub assert_copies_equal
{
	my ($self, $i, $name) = @_;
	$i //= (grep { $self->is_running($_) } 1 .. $self->{nodes})[0] // croak 'no node is running';
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my ($status, $out, $err);
	$self->wait_until('all copies to be comparable', 60, sub {
			($status, $out, $err) = $self->try_sql($i,
				"SELECT coalesce(v.equal::text, 'unknown'), v FROM payshard.verify() AS v WHERE v.equal IS NOT TRUE");
			return ($err !~ /55006/ && $out !~ /^unknown/m, $out . $err);
		});
	return ok($status == 0 && $out eq '', $name // 'all copies are equal')
	  || diag("differing:\n$out\n$err");
}

# ---------------------------------------------------------------- the end

# Ends every node by pid, whatever state it is in.  An orderly SIGQUIT first: it lets
# the postmaster remove what it has in shared memory.
sub stop_all
{
	my ($self) = @_;
	my @nodes = 1 .. @{ $self->{servers} };

	foreach my $i (@nodes)
	{
		my @pids = $self->pids($i);
		my $postmaster = $self->_postmaster($i);
		kill 'CONT', @pids if @pids;
		kill 'QUIT', $postmaster if defined $postmaster && grep { $_ == $postmaster } @pids;
	}
	foreach my $i (@nodes)
	{
		eval { $self->wait_down($i, 10); 1 } or kill 'KILL', $self->pids($i);
		$self->node($i)->{_pid} = undef;
	}
	return;
}

# The end of each log, to the reader of a failed test.
sub show_logs
{
	my ($self) = @_;
	foreach my $i (1 .. @{ $self->{servers} })
	{
		my $path = $self->node($i)->logfile;
		open my $file, '<', $path or next;
		my @lines = <$file>;
		splice(@lines, 0, @lines - $log_lines_shown) if @lines > $log_lines_shown;
		diag("---- end of $path\n", @lines);
	}
	return;
}

# Runs before the END of PostgreSQL::Test::Cluster, which gives up on a node
# that died by itself.
END
{
	my $status = $?;
	if (@all)
	{
		my $passed = $status == 0 && PostgreSQL::Test::Utils::all_tests_passing();
		$_->show_logs foreach $passed ? () : @all;
		$_->stop_all foreach @all;
	}
	$? = $status;
}

1;
