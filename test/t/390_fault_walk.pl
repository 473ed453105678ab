# Walks every fault point, on the side of the primary and of the secondary, with
# each of: error, panic (the server dies and is started again), pause (others go
# on without it, then it goes on), kill (a pause that ends in SIGKILL), disconnect
# (the process ends).  After each step the clients' logs must fit all copies
# (PayshardPayments.pm says how).
#
# One cluster of three data nodes for all; node 2 is the one where it happens, it
# is primary, secondary and voter at once.  Each scenario is the load or the event
# that reaches its points.
#
# By default each point gets one action, another for each neighbour;
# PAYSHARD_WALK=full gives each point all of them; PAYSHARD_WALK=<pattern> those
# for which "scenario point action" matches; PAYSHARD_WALK_ONLY=<pattern> of scenarios.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;
use Time::HiRes qw(time);

my $c = PayshardCluster->new(nodes => 3, shards => 8, conf => <<'CONF');
payshard.peer_timeout = 700ms
payshard.call_timeout = 2s
payshard.keepalive = 50ms
payshard.gate_timeout = 8s
payshard.commit_timeout = 5s
payshard.abort_timeout = 4s
payshard.shutdown_timeout = 3s
CONF
my $p = PayshardPayments->new($c, seconds => 40);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

my @all = qw(error panic pause kill disconnect);
my @no_error = qw(panic pause kill);		# in a critical section or a commit callback

# scenario => points; a point with other than @all in a list of its own
my @walk = (
	write => [
		qw(capture.row commit.before_enqueue commit.after_enqueue commit.after_acks
		  sender.before_send sender.after_send sender.before_ack sender.after_ack
		  receiver.before_journal receiver.before_commit apply.before apply.before_commit apply.after_commit) ],
	write_no_error => [ qw(commit.before_dirty commit.before_local commit.after_local receiver.after_commit) ],
	abort => [ qw(commit.before_abort commit.after_abort) ],
	hello => [ qw(sender.before_hello receiver.hello) ],
	propose => [ qw(proposer.before_prepare proposer.before_accept proposer.after_accept proposer.chosen proposer.after_spread) ],
	vote => [
		qw(acceptor.before_promise acceptor.promised acceptor.before_accept acceptor.accepted
		  map.before_adopt map.before_commit) ],
	vote_no_error => [qw(map.after_commit)],
	start => [ qw(start.before_boot start.before_incarnation start.after_incarnation start.before_open) ],
	lead_own => [ qw(settle.before_tails settle.after_tails settle.after_journal settle.after_apply settle.after_settled) ],
	lead => [ qw(settle.before_tails settle.after_tails settle.after_journal settle.after_apply settle.after_settled) ],
	member => [ qw(settle.tail settle.before_journal settle.journaled settle.before_apply settle.applied) ],
	failover => [ qw(failover.before_fail failover.after_fail) ],
	rejoin => [
		qw(rejoin.before_teach rejoin.before_begin rejoin.before_join rejoin.after_join rejoin.before_copy
		  rejoin.after_copy rejoin.after_copied rejoin.before_digest rejoin.before_in_sync rejoin.after_in_sync) ],
	join => [ qw(join.begin join.keys join.copy join.before_copied join.copied join.await_applied join.digest) ],);

# ------------------------------------------------------------ what happens

sub arm
{
	my ($node, $point, $action) = @_;
	$c->sql($node, "SELECT payshard_fault.arm('$point', '" . ($action eq 'kill' ? 'pause' : $action) . "')");
	return;
}

# Armed from the first moment of the next start.
sub arm_start
{
	my ($node, $point, $action) = @_;
	open my $file, '>', $c->node($node)->data_dir . '/payshard_fault.conf' or die $!;
	print $file "$point " . ($action eq 'kill' ? 'pause' : $action) . " 1\n";
	close $file;
	return;
}

# Starts a node so armed; a panic may be sooner than pg_ctl looks.
sub start_armed
{
	my ($node, $point) = @_;
	my $offset = $c->log_size($node);
	return if $c->start($node, fail_ok => 1);
	my $log = PostgreSQL::Test::Utils::slurp_file($c->node($node)->logfile, $offset);
	die "node $node did not start" unless $log =~ /PANIC:  fault point "\Q$point\E"/;
	return;
}

# Waits until the point has acted.
sub await_hit
{
	my ($node, $point, $action) = @_;
	if ($action eq 'panic') { $c->wait_down($node, 25); }
	elsif ($action eq 'pause' || $action eq 'kill') { $c->wait_sql($node, "SELECT payshard_fault.paused('$point')", 25); }
	else { $c->wait_sql($node, "SELECT NOT payshard_fault.armed('$point')", 25); }
	return;
}

# Ends what the action left behind.
sub recover
{
	my ($node, $point, $action) = @_;
	if ($action eq 'kill') { $c->kill9($node, all => 1); }
	elsif ($action eq 'pause') { $c->sql($node, "SELECT payshard_fault.disarm('$point')"); }
	$c->start($_) foreach 1 .. 3;
	return;
}

sub pay_everywhere
{
	my ($n) = @_;
	$p->start($_, $n, accounts => [ $p->accounts_at($_, 1) ]) foreach 1 .. 3;
	return;
}

# Others go on while node 2 is paused: their clients come through.
sub await_others
{
	my @others = grep { $_->{node} != 2 } @{ $p->{clients} };
	$c->wait_until('the clients of the other nodes to be through', 30, sub {
			return !grep { !PayshardPayments::is_through($_) } @others;
		});
	return;
}

my %scenario;

$scenario{write} = sub {
	my ($point, $action) = @_;
	arm(2, $point, $action);
	pay_everywhere(12);
	await_hit(2, $point, $action);
	await_others();
	recover(2, $point, $action);
};
$scenario{write_no_error} = $scenario{write};

# A client cancels while a secondary does not answer (W7).
$scenario{abort} = sub {
	my ($point, $action) = @_;
	need_primary(2, 3);
	my ($account) = $p->accounts_between(2, 3);
	arm(3, 'receiver.before_journal', 'pause');
	arm(2, 'commit.after_enqueue', 'pause');
	arm(2, $point, $action);
	$p->start(2, 1, accounts => [$account]);
	await_hit(2, 'commit.after_enqueue', 'pause');
	$c->sql(2, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND pid <> pg_backend_pid()");
	$c->sql(2, "SELECT payshard_fault.disarm('commit.after_enqueue')");
	await_hit(2, $point, $action);
	$c->sql(3, "SELECT payshard_fault.disarm('receiver.before_journal')");
	recover(2, $point, $action);
};

# Connections are lost under load: senders begin again.
$scenario{hello} = sub {
	my ($point, $action) = @_;
	arm(2, $point, $action);
	# node 2 may be gone at once
	$c->try_sql($_, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'payshard sender%'")
	  foreach 1, 3, 2;
	$p->start($_, 12, accounts => [ $p->accounts_at($_, 1) ]) foreach 1, 3;
	await_hit(2, $point, $action);
	await_others();
	recover(2, $point, $action);
};

# Node 2 proposes a map, node 1 does and node 2 votes.
sub change_map
{
	my ($by, $point, $action) = @_;
	arm(2, $point, $action);
	pay_everywhere(6);
	$p->{side} = fork() // die;
	if ($p->{side} == 0)
	{
		open STDOUT, '>', '/dev/null'; open STDERR, '>', '/dev/null';
		exec { 'psql' } 'psql', '-XAtq', '-d', $c->node($by)->connstr('postgres'), '-c', "SELECT payshard.rebuild_node('n3')" or POSIX::_exit(1);
	}
	await_hit(2, $point, $action);
	recover(2, $point, $action);
	waitpid($p->{side}, 0);
	return;
}
$scenario{propose} = sub { change_map(2, @_) };
$scenario{vote} = $scenario{vote_no_error} = sub { change_map(1, @_) };

# Node 2 loses power under load, and something happens while it starts.
$scenario{start} = sub {
	my ($point, $action) = @_;
	pay_everywhere(12);
	$c->kill9(2, all => 1);
	arm_start(2, $point, $action);
	start_armed(2, $point);
	await_hit(2, $point, $action);
	recover(2, $point, $action);
};
$scenario{lead_own} = $scenario{start};

# Failovers leave a node without primaries.  This makes node $primary one of shards whose
# copy is on $secondary again, by a failover of that one while it lives.
sub need_primary
{
	my ($primary, $secondary) = @_;
	return if $p->accounts_between($primary, $secondary);
	my ($by) = grep { $_ != $secondary && $_ != $primary } 1 .. 3;
	$c->sql($by, "SELECT payshard.failover('n$secondary', force => true)");
	$p->wait_in_sync;
	$p->accounts_between($primary, $secondary) or die "node $primary got no shard of node $secondary";
	return;
}

# Node 3 is lost; node 2 leads its settling, or node 1 does and node 2 is a member.
sub lose_node_3
{
	my ($by, $point, $action) = @_;
	need_primary(3, 2);
	pay_everywhere(12);
	# one entry is undecided for sure: acked by node 2, not committed at node 3
	arm(3, 'commit.after_acks', 'pause');
	$p->start(3, 1, accounts => [ ($p->accounts_between(3, 2))[0] ]);
	await_hit(3, 'commit.after_acks', 'pause');
	$c->kill9(3, all => 1);
	arm(2, $point, $action);
	my $pid = fork() // die;
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null'; open STDERR, '>', '/dev/null';
		exec { 'psql' } 'psql', '-XAtq', '-d', $c->node($by)->connstr('postgres'), '-c', "SELECT payshard.failover('n3')" or POSIX::_exit(1);
	}
	await_hit(2, $point, $action);
	recover(2, $point, $action);
	waitpid($pid, 0);
	return;
}
$scenario{lead} = $scenario{failover} = sub { lose_node_3(2, @_) };
$scenario{member} = sub { lose_node_3(1, @_) };

# Node 3 was out and has missed payments; node 2 takes it back, or node 2 is taken back.
sub come_back
{
	my ($who, $point, $action) = @_;
	my $other = $who == 3 ? 2 : 3;
	need_primary($other, $who);
	$c->kill9($who);
	$p->start($_, 6, accounts => [ $p->accounts_at($_, 1) ]) foreach 1, $other;
	$p->finish;
	if ($who == 2)
	{
		arm_start(2, $point, $action);
		start_armed(2, $point);
	}
	else
	{
		arm(2, $point, $action);
		$c->start($who);
	}
	pay_everywhere(12);
	await_hit(2, $point, $action);
	recover(2, $point, $action);
	return;
}
$scenario{rejoin} = sub { come_back(3, @_) };
$scenario{join} = sub { come_back(2, @_) };

# --------------------------------------------------------------- the walk

my $mode = $ENV{PAYSHARD_WALK} // '';
my $only = $ENV{PAYSHARD_WALK_ONLY} // '.*';
my $k = 0;
my $begun = time();

sub walk
{
	my ($name, $point, $action) = @_;
	my $case = "$name: $action at $point";
	my $start = time();

	eval { $scenario{$name}->($point, $action); 1 } or do
	{
		fail("$case: $@");
		$c->start($_) foreach 1 .. 3;
		$c->sql($_, "SELECT payshard_fault.disarm('$point'), payshard_fault.disarm('receiver.before_journal'),"
			  . "payshard_fault.disarm('commit.after_enqueue')") foreach 1 .. 3;
	};
	my $kept = $p->assert_kept($case);
	note(sprintf '%.1f s', time() - $start);
	$p->{outcome} = {} if $kept;		# what was found right once is not looked for again
	return $kept;
}

SCENARIO: while (my ($name, $points) = splice(@walk, 0, 2))
{
	next if $name !~ /^(?:$only)$/;
	my @actions = $name =~ /no_error/ ? @no_error : @all;
	foreach my $point (@$points)
	{
		my @todo = $mode eq 'full' ? @actions
		  : $mode ne '' ? grep { "$name $point $_" =~ /$mode/ } @actions
		  : ($actions[ $k++ % @actions ]);
		foreach my $action (@todo)
		{
			walk($name, $point, $action) or last SCENARIO;
		}
	}
}
note(sprintf 'the walk took %.0f s', time() - $begun);
done_testing();
