# A primary is lost and nobody calls: the others notice, agree, wait until its
# lease has run out, and go on without it (Q1, F2 to F5).
#
# Method: two data nodes and a witness, leases and automatic failover as by default.
# Clients pay at both; one data node is killed (kill -9), or stands still
# (SIGSTOP) and wakes up later.  Statements at the other nodes wait for the new
# primary; a transaction in flight at the lost one fails, truthfully; sessions
# that the frozen node wakes up with never read what was true before.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;
use Time::HiRes qw(time);

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, auto => 1, conf => "payshard.failover_wait = 60s\n");
my $p = PayshardPayments->new($c);
my $dir = PostgreSQL::Test::Utils::tempdir();
my $n_scripts = 0;

# The data node that is primary of something, and the other.
sub cast
{
	$p->wait_in_sync;
	my ($node) = grep { $p->accounts_at($_) } 1 .. 2;
	return ($node, 3 - $node);
}

# All shards are open and none of them has its primary on a node, as node i sees it.
sub await_moved
{
	my ($i, $lost) = @_;
	return $c->wait_sql($i, "SELECT bool_and(state = 'open' AND primary_node <> 'n$lost') FROM payshard.shards", 120);
}

# psql at a node with a script, in the background; in it, "await FILE" waits for a file.
sub background
{
	my ($node, $script) = @_;
	my $name = "$dir/script" . $n_scripts++;

	$script =~ s{^await (\S+)$}{\\! until [ -e $1 ]; do sleep 0.05; done}gm;
	open my $file, '>', "$name.sql" or die "$name.sql: $!";
	print $file "\\set VERBOSITY sqlstate\n$script";
	close $file;
	# read before psql has opened it
	touch("$name.out");
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$name.out";
		open STDERR, '>', "$name.err";
		exec 'psql', '-XAtq', '-d', $c->node($node)->connstr('postgres'), '-f', "$name.sql" or POSIX::_exit(127);
	}
	return { pid => $pid, name => $name };
}

sub output { my ($job) = @_; return PostgreSQL::Test::Utils::slurp_file("$job->{name}.out"); }

sub touch { my ($path) = @_; open my $file, '>', $path or die "$path: $!"; close $file; return; }

# A transaction at node `via` with a payment at another's shard, which goes on when $go is there.
sub start_transaction
{
	my ($via, $account, $go) = @_;
	my ($id, $sql) = $p->payment($account);
	my $job = background($via, "BEGIN;\n$sql;\n\\echo begun\nawait $go\nUPDATE accounts SET balance = balance WHERE id = $account;\n"
		  . "\\if :ERROR\n\\echo fail $id :SQLSTATE\n\\endif\nCOMMIT;\n\\if :ERROR\n\\echo fail $id :SQLSTATE\n\\endif\n\\echo end\n");
	$c->wait_until('the transaction to have written', 60, sub { output($job) =~ /begun/ });
	return ($job, $id);
}

sub finish_transaction
{
	my ($name, $job, $id) = @_;
	$c->wait_until('the transaction to end', 120, sub { output($job) =~ /end/ });
	waitpid $job->{pid}, 0;
	my ($what, $state) = output($job) =~ /^(fail) $id (\w+)$/m;
	$p->note_outcome('fail', $id, $state);
	return like($state // '', qr/^(?:40001|08007)$/, "$name: a transaction in flight at the lost primary fails as 40001 or 08007");
}

foreach my $how ('kill -9', 'SIGSTOP')
{
	my ($victim, $survivor) = cast();
	my $begun = $c->sql($survivor, 'SELECT clock_timestamp()');
	my @moved = $p->accounts_at($victim);
	my ($job, $id) = start_transaction($survivor, $moved[1], "$dir/go $how" =~ s/ -?//gr);
	my $before = $c->sql($survivor, "SELECT balance FROM accounts WHERE id = $moved[0]");
	# a session at the victim from before, which reads as soon as it may
	my $reader = background($victim, "SELECT 1;\n\\echo ready\nawait $dir/read$victim$n_scripts\n"
		  . "SELECT 'balance ' || balance FROM accounts WHERE id = $moved[0];\n" x 200);
	my $read = "$dir/read$victim" . ($n_scripts - 1);
	$c->wait_until('the reader to be connected', 60, sub { output($reader) =~ /ready/ });
	# others pay other accounts: what the reader may see is known
	$p->start($_, 80, accounts => [ grep { $_ != $moved[0] && $_ != $moved[1] } $p->accounts_at($_) ]) foreach 1 .. 2, 1 .. 2;
	$c->wait_until('payments to be under way', 60, sub { $c->sql($survivor, 'SELECT count(*) > 30 FROM payments') eq 't' });

	my $begun_s = time();
	$how eq 'SIGSTOP' ? $c->pause($victim) : $c->kill9($victim, all => 1);
	my $ended = $c->sql($survivor, 'SELECT clock_timestamp()');
	foreach my $via ($survivor, 3)
	{
		is(scalar($p->pay($via, $moved[0], timeout => 120)), 'ok', "$how: a payment through node $via waits for the new primary, and is taken")
		  || diag($p->{last_error});
		diag(sprintf '%s: acknowledged after %.2f s', $how, time() - $begun_s) if $via == $survivor;
	}
	await_moved($survivor, $victim);
	touch("$dir/go $how" =~ s/ -?//gr);
	finish_transaction($how, $job, $id);
	my $after = $c->sql($survivor, "SELECT balance FROM accounts WHERE id = $moved[0]");
	cmp_ok($after, '>', $before, "$how: the balance has changed meanwhile");
	touch($read);
	if ($how eq 'SIGSTOP')
	{
		$c->resume($victim);
	}
	$p->finish(120);
	waitpid $reader->{pid}, 0;
	my @stale = grep { $_ < $after } output($reader) =~ /^balance (\d+)$/mg;
	is("@stale", '', "$how: nobody reads at the lost primary what was true before");
	$c->start($victim);
	$p->assert_kept("$how of a primary");

	# failed is its last answer
	my $incident = $c->sql($survivor, "SELECT kind, failed BETWEEN '$begun' AND '$ended', "
		  . 'failed < detected, detected <= decided, decided <= open_again, open_again <= back_in_sync, transactions_lost, reason '
		  . "FROM payshard.incidents WHERE node = 'n$victim' AND epoch IS NOT NULL ORDER BY epoch DESC LIMIT 1");
	like($incident, qr/^failover\|t\|t\|t\|t\|t\|0\|automatic failover of node n$victim: it (?:refuses connections|does not answer|is not heard), 2 of 3 nodes agree$/,
		"$how: the incident says what happened");
}

# The only copy in sync is not failed over; that is said, and it goes on when it is back.
my ($last, $gone) = cast();
$c->kill9($gone, all => 1);
$c->wait_sql($last, "SELECT bool_and(in_sync = '{n$last}') FROM payshard.shards", 120);
my ($account) = $p->accounts_at($last, $last);
is(scalar($p->pay($last, $account, timeout => 120)), 'ok', 'one copy left: payments are taken') || diag($p->{last_error});
$c->kill9($last, all => 1);
$c->start($gone);
$c->wait_sql($gone, "SELECT count(*) > 0 FROM payshard.events WHERE kind = 'not_failed_over' AND node = 'n$last' "
	  . "AND detail LIKE '%holds the only copy in sync of all%'", 120);
is($c->sql(3, "SELECT state FROM payshard.nodes WHERE name = 'n$last'"), 'up', 'the only copy in sync is not failed over, and an event says why');
$c->start($last);
$p->assert_kept('the last copy was waited for');

done_testing();
