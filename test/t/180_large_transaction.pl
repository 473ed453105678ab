# A transaction of 100,000 payments: no node takes more than 200 MB for it, however
# small the queue, and it is as whole as a small one when its secondary is slow or dies,
# when it is cancelled or terminated, or its primary dies, amid its entry (W7, W9, F1).
#
# Method: rows of about 100 bytes at node 1, whose copy is on node 2.  Memory is what
# the processes have of their own (PayshardMemory), and the queue in shared memory.
# "Amid its entry": node 2 journals nothing, at a fault point, so that the queue of 1 MB
# fills, and the backend waits for room.
use strict;
use warnings;
use PayshardCluster;
use PayshardMemory;
use PayshardPayments;
use PostgreSQL::Test::Utils ();
use Test::More;

my $limit_mb = 200;
my $n_rows = 100_000;
my $point = 'receiver.before_journal';
my $c = PayshardCluster->new(nodes => 3, shards => 16, conf => "payshard.peer_timeout = 5min\npayshard.call_timeout = 5min\n");
my $p = PayshardPayments->new($c);
my $memory = PayshardMemory->new($c);
my ($account, @others) = $p->accounts_between(1, 2);
my ($at_third) = $p->accounts_between(1, 3);
my $next_id = 0;
my $n_kept = 0;

$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1, 2;
$c->sql(1, <<'SQL');
CREATE TABLE transfer (account_id bigint REFERENCES accounts, id bigint, amount numeric(14,2) NOT NULL, currency char(3) NOT NULL,
	made timestamptz NOT NULL DEFAULT now(), reference text NOT NULL, PRIMARY KEY (account_id, id));
SELECT payshard.create_distributed_table('transfer', 'account_id');
SQL

# A SELECT of new rows, of one account or of all that are given.
sub new_rows
{
	my (@accounts) = @_;
	my ($from, $to) = ($next_id, $next_id + $n_rows - 1);
	my $account = @accounts == 1 ? $accounts[0] : "('{" . join(',', @accounts) . "}'::bigint[])[1 + g % " . @accounts . ']';
	$next_id += $n_rows;
	return "SELECT $account, g, round(random()::numeric * 10000, 2), 'EUR', now(), 'RF18 5390 0754 7034 ' || md5(g::text) "
	  . "FROM generate_series($from, $to) g";
}

sub journals_empty { return $p->wait_journals_empty(120); }

# The statement is done and applied; its memory is within bounds.
sub within_limit
{
	my ($name, $queue_mb, $sql) = @_;
	$memory->start;
	my ($status, $out, $err) = $c->try_sql(1, $sql, timeout => 300);
	is($status, 0, "$name: committed") || diag($err);
	journals_empty();
	my $peak = $memory->stop;
	note("$name, and a queue of $queue_mb MB:\n", PayshardMemory::show($peak));
	# a sampler that saw nothing would pass everything
	cmp_ok($peak->{1}{total}, '>', 5, "$name: the memory of node 1 was seen");
	foreach my $i (1 .. 3)
	{
		my $mb = ($peak->{$i}{total} // 0) + $queue_mb;
		cmp_ok($mb, '<', $limit_mb, "$name: node $i took $mb MB");
	}
	return;
}

# Nothing but what was acknowledged, on all copies.
sub kept
{
	my ($name) = @_;
	$p->wait_in_sync(180);
	journals_empty();
	$c->wait_sql(1, "SELECT count(*) = $n_kept FROM transfer");
	is($c->sql(1, 'SELECT count(*) FROM transfer'), $n_kept, "$name: as many rows as were acknowledged");
	$c->assert_copies_equal(1, "$name: copies are equal");
	return;
}

within_limit('INSERT', 64, 'INSERT INTO transfer ' . new_rows($account));
my $file = PostgreSQL::Test::Utils::tempdir() . '/rows';
$c->sql(1, 'COPY (' . new_rows($account, @others) . ") TO '$file'");
within_limit('COPY of several keys', 64, "COPY transfer FROM '$file'");
$n_kept = 2 * $n_rows;
within_limit('UPDATE', 64, "UPDATE transfer SET amount = amount + 1 WHERE account_id = $account");
kept('a queue of 64 MB');

# The smallest queue.
$c->node(1)->append_conf('postgresql.conf', 'payshard.queue_size = 1MB');
$c->restart(1);
$p->wait_open(120);
within_limit('INSERT', 1, 'INSERT INTO transfer ' . new_rows($account));
$n_kept += $n_rows;
within_limit('DELETE', 1, "DELETE FROM transfer WHERE account_id = $account AND id < $n_rows");
$n_kept -= $n_rows;
kept('a queue of 1 MB');

# A client that inserts in the background, and the queue full: (process, file of output).
my $queries = "FROM pg_stat_activity WHERE query LIKE 'INSERT INTO transfer%' AND state = 'active'";

sub amid_entry
{
	my $out = PostgreSQL::Test::Utils::tempdir() . '/out';
	my $sql = 'INSERT INTO transfer ' . new_rows($account);
	$c->sql(2, "SELECT payshard_fault.arm('$point', 'pause')");
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $out;
		open STDERR, '>&', \*STDOUT;
		exec('psql', '-XAt', '-v', 'VERBOSITY=verbose', '-d', $c->node(1)->connstr('postgres'),
			'-c', $sql) or POSIX::_exit(127);
	}
	$c->wait_sql(2, "SELECT payshard_fault.paused('$point')");
	$c->wait_sql(1, "SELECT count(*) = 1 $queries AND wait_event_type = 'Extension'");
	return ($pid, $out);
}

sub let_go { return $c->sql(2, "SELECT payshard_fault.disarm('$point')"); }

sub said
{
	my ($pid, $out) = @_;
	waitpid $pid, 0;
	return PostgreSQL::Test::Utils::slurp_file($out);
}

my $incarnation = $c->sql(1, 'SELECT payshard.incarnation()');

# A slow secondary: waited for, and others behind.
my @client = amid_entry();
cmp_ok($c->sql(1, 'SELECT max(queued_bytes) FROM payshard.replication'), '<=', 1024 * 1024, 'the queue does not grow');
$p->start(1, 1, accounts => [$at_third]);
$c->wait_sql(1, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND wait_event_type = 'Extension'");
let_go();
like(said(@client), qr/^INSERT 0 $n_rows$/m, 'a slow secondary: committed');
$p->finish;
$n_kept += $n_rows;

# Cancelled and terminated: aborted everywhere, and the node serves on.
@client = amid_entry();
$c->sql(1, "SELECT pg_cancel_backend(pid) $queries");
let_go();
like(said(@client), qr/57014/, 'cancelled amid its entry');
is(scalar($p->pay(1, $account)), 'ok', 'cancelled: others go on') || diag($p->{last_error});
@client = amid_entry();
$c->sql(1, "SELECT pg_terminate_backend(pid) $queries");
let_go();
unlike(said(@client), qr/^INSERT/m, 'terminated amid its entry');
is(scalar($p->pay(1, $account)), 'ok', 'terminated: others go on') || diag($p->{last_error});
is($c->sql(1, 'SELECT payshard.incarnation()'), $incarnation, 'nothing had to be recovered');
kept('cancelled and terminated');

# The secondary dies: committed without it, and it gets the rows when it is back.
@client = amid_entry();
$c->kill9(2);
$c->node(1)->append_conf('postgresql.conf', "payshard.peer_timeout = 1s\npayshard.call_timeout = 5s\n");
$c->sql(1, 'SELECT pg_reload_conf()');
$memory->start;
like(said(@client), qr/^INSERT 0 $n_rows$/m, 'the secondary dies: committed');
$n_kept += $n_rows;
$c->start(2);
kept('the secondary died');
my $peak = $memory->stop;
note("without the secondary, and its way back:\n", PayshardMemory::show($peak));
cmp_ok(($peak->{$_}{total} // 0) + 1, '<', $limit_mb, "the secondary died: memory of node $_") foreach 1 .. 3;

# The primary dies: the piece that node 2 has is no entry.
@client = amid_entry();
$c->kill9(1);
let_go();
unlike(said(@client), qr/^INSERT/m, 'the primary dies');
$c->start(1);
$p->wait_open(120);
kept('the primary died');

$p->assert_kept('small payments meanwhile');
done_testing();
