# Sessions, and the plans they keep, survive the failover of another node; a lost COMMIT is 08007.
#
# Three data nodes.  One session at node 1 prepares statements for a shard of
# node 2, uses them, sees node 2 killed and failed over, and goes on with the
# same prepared statements at the new primary.  Then a primary crashes amid the
# COMMIT that another node's client waits for: the client hears 08007, and the
# outcome is the same wherever one looks.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IPC::Run qw(run);
use PayshardCluster;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 8, conf => "payshard.peer_timeout = 1s\n");

$c->sql(1, q{CREATE TABLE account (id bigint PRIMARY KEY, balance numeric NOT NULL DEFAULT 0);
	SELECT payshard.create_distributed_table('account', 'id')});
$c->sql(1, "INSERT INTO account VALUES ($_)") foreach 1 .. 20;
my $key = $c->sql(1, q{SELECT min(k) FROM generate_series(1, 20) k, payshard.shards s WHERE s.shard = payshard.shard_for('account', k::text) AND primary_node = 'n2'});

my $kill = join(' ', ($c->pids(2))[0]);
my $other = $c->node(3)->connstr('postgres');
my $out;
run [ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $c->node(1)->connstr('postgres') ], '<', \<<SQL, '&>', \$out;
PREPARE one AS SELECT id FROM account WHERE id = $key;
PREPARE par (bigint) AS SELECT id FROM account WHERE id = \$1;
PREPARE everything AS SELECT count(*) FROM account;
PREPARE up AS UPDATE account SET balance = balance + 1 WHERE id = $key RETURNING balance;
EXECUTE one; EXECUTE par ($key); EXECUTE everything; EXECUTE up; EXECUTE up;
\\! kill -9 $kill
\\! sleep 1
\\echo dead
EXECUTE par ($key);
EXECUTE everything;
\\! psql -XAtq -d "$other" -c "SELECT payshard.failover('n2')" >/dev/null
\\! psql -XAtq -d "$other" -c "DO \\\$\\\$ BEGIN FOR i IN 1..300 LOOP EXIT WHEN NOT EXISTS (SELECT FROM payshard.shards WHERE state <> 'open'); PERFORM pg_sleep(0.1); END LOOP; END \\\$\\\$"
\\! sleep 1
\\echo failed over
EXECUTE everything;
EXECUTE one; EXECUTE par ($key); EXECUTE everything; EXECUTE up; EXECUTE up;
SQL
$out =~ s/^psql:<stdin>:\d+: //mg;
like($out, qr/^$key\n$key\n20\n1\n2\ndead\n/, 'a session uses a remote primary');
like($out, qr/dead\n(ERROR:  (08\w{3}|40001)\n){2}failed over/, 'whose death gives errors, no answers');
like($out, qr/failed over\n(20|ERROR:  40001)\n$key\n$key\n20\n3\n4\n/, 'and goes on at the new primary with the same prepared statements')
  or diag($out);

$c->wait_down(2);
$c->start(2);
$c->wait_all_in_sync(90);

# The new primary crashes after the other copies have acknowledged: forward.
my $primary = $c->sql(1, "SELECT substr(primary_node, 2) FROM payshard.shards WHERE shard = payshard.shard_for('account', '$key')");
my $client = $primary == 1 ? 3 : 1;
foreach my $point (qw(commit.after_enqueue commit.after_acks))
{
	my $before = $c->sql($client, "SELECT balance FROM account WHERE id = $key");
	$c->arm_fault($primary, $point, 'panic');
	my ($status, $stdout, $err) = $c->try_sql($client, "UPDATE account SET balance = balance + 1 WHERE id = $key", timeout => 60);
	like($err, qr/ERROR:  08007: /, "$point: a lost COMMIT is 08007") or diag($err);
	like($err, qr/HINT: /, 'with a hint');
	$c->wait_down($primary);
	$c->start($primary);
	$c->wait_all_in_sync(90);
	$c->wait_sql($client, "SELECT count(*) = 1 FROM account WHERE id = $key");
	my @after = map { $c->sql($_, "SELECT balance FROM account WHERE id = $key") } 1 .. 3;
	is($after[0], $before + 1, "$point: rolled forward") if $point eq 'commit.after_acks';
	is("@after", "$after[0] $after[0] $after[0]", "$point: the same from every node");
	$c->assert_copies_equal($client);
}
# A snapshot from before this node became primary does not show what was committed elsewhere since.
my $shard = $c->sql(1, "SELECT payshard.shard_for('account', '$key')");
my ($from, $to) = split /\|/, $c->sql(1, "SELECT primary_node, (SELECT node FROM payshard.placements p WHERE p.shard = $shard AND p.state = 'in_sync' AND p.node <> primary_node LIMIT 1) FROM payshard.shards WHERE shard = $shard");
my ($a, $b) = map { substr $_, 1 } $from, $to;
$other = $c->node($a)->connstr('postgres');
$c->sql($_, q{CREATE FUNCTION look(k bigint) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN (SELECT count(*) FROM account WHERE id = k); END $$}) foreach 1 .. 3;
run [ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $c->node($b)->connstr('postgres') ], '<', \<<SQL, '&>', \$out;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 'begun';
\\! psql -XAtq -d "$other" -c "UPDATE account SET balance = -77 WHERE id = $key" -c "SELECT 'switched' FROM payshard.switchover($shard, '$to')"
SELECT balance FROM account WHERE id = $key;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT balance FROM account WHERE id = $key;
COMMIT;
SQL
$out =~ s/^psql:<stdin>:\d+: //mg;
is($out, "begun\nswitched\nERROR:  40001\n-77\n", "a transaction's snapshot is older than the switchover to its node");

# What functions read in parallel workers is let go when the worker ends.
my $force = $c->sql(1, 'SELECT current_setting($$server_version_num$$)::int >= 160000') eq 't' ? 'debug_parallel_query' : 'force_parallel_mode';
is($c->sql($b, "SET $force = on; SELECT look($key)"), '1', 'a function in a worker reads a distributed table');
like($c->sql($b, "SET $force = on; EXPLAIN SELECT look($key)"), qr/Gather.*Single Copy: true/s, 'in the worker alone');
is($c->sql($b, "SELECT to_node FROM payshard.switchover($shard, '$from')"), $from, 'and does not stand in the way of a switchover');

unlike(PostgreSQL::Test::Utils::slurp_file($c->node($_)->logfile), qr/TRAP|signal 11/, "no other crash at node $_") foreach 1 .. 3;

done_testing();
