# A lock of a user on a secondary delays what is applied there, and nothing else:
# payments are journaled, a new map is adopted, nobody's outcome is unknown.
#
# Method: at node 2 a transaction holds locks on the partitions of two tables of a shard whose
# primary is node 1 (REINDEX, which is of one server, takes them).  Node 1 is paid
# until the applier of node 2 waits; the map is changed; there are more payments.  Then the lock
# is given up.  The same with the table itself, and once more, and the primary is killed.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.commit_timeout = 5s\npayshard.abort_timeout = 5s\n");
my $p = PayshardPayments->new($c);
my ($account, $other) = $p->accounts_between(1, 2);
my $shard = $p->{shard}{$account};
my @partitions = map { $p->{partition}{$_}{$shard} } qw(payments accounts);
my $behind = "SELECT count(*) > 0 FROM payshard.journal";

$p->start(1, 3, accounts => [$account]);
$p->finish;
$c->wait_sql(2, $behind, 30, 'f');
my $session = $c->node(2)->background_psql('postgres', on_error_stop => 1);
$session->query_safe("BEGIN");
$session->query_safe("REINDEX TABLE $_") foreach @partitions;

is(scalar($p->pay(1, $account)), 'ok', 'a payment is journaled at the secondary');
$c->wait_sql(2, $behind);
$c->wait_sql(2, "SELECT count(*) > 0 FROM pg_locks WHERE relation IN ('$partitions[0]'::regclass, '$partitions[1]'::regclass) AND NOT granted");
pass('its applier waits for the lock');

my $epoch = $c->sql(1, 'SELECT max(epoch) FROM payshard.map_history');
my ($status, $out, $err) = $c->try_sql(1, "SELECT payshard.set_node('n3', zone => 'elsewhere')");
is($status, 0, 'the map is changed') || diag($err);
$c->wait_sql(2, "SELECT max(epoch) > $epoch FROM payshard.map_history", 20);
pass('the secondary has adopted it');
$p->start(1, 20, accounts => [$account]);
$p->start(2, 20);
$p->finish;
is($p->tally, 'ok 44', 'payments go on at both nodes');
is($c->sql(2, $behind), 't', 'they wait to be applied');
is($c->sql(2, "SELECT count(*) FROM payshard.placements WHERE state <> 'in_sync'"), '0', 'and nobody was left out');

$session->query_safe("COMMIT");
$p->assert_kept('the lock is given up');

# DDL locks the table, then its partitions: the applier that waits for the table has none of
# them, or one of the two would die of a deadlock.
my $table = 'payments';
my $lock = "SELECT payshard.peer_ddl('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', current_user, 'public')";
$session->query_safe('BEGIN; ' . sprintf($lock, $table));
is(scalar($p->pay(1, $account)), 'ok', 'a payment while the table is locked at the secondary');
$c->wait_sql(2, "SELECT count(*) > 0 FROM pg_locks WHERE relation = '$table'::regclass AND NOT granted");
is($c->sql(2, "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'payshard apply' AND l.granted "
	. "AND l.relation = '$partitions[0]'::regclass"), '0', 'its applier waits for it without the partition');
$session->query_safe(sprintf($lock, $partitions[0]));
$session->query_safe('COMMIT');
$p->assert_kept('the table is free again');

# The primary is lost while what it has sent waits for such a lock: its shards open
# when the lock is given up, and not without what was acknowledged.
$session->query_safe("BEGIN");
$session->query_safe("REINDEX TABLE $_") foreach @partitions;
is(scalar($p->pay(1, $account)), 'ok', 'another payment is journaled');
$c->wait_sql(2, $behind);
$c->kill9(1);
($status, $out, $err) = $c->try_sql(3, "SET statement_timeout = '4s'; SELECT payshard.failover('n1')");
isnt($status, 0, 'the failover waits');
is($c->sql(3, "SELECT state FROM payshard.shards WHERE shard = $shard"), 'recovering', 'the shard is not open yet');
($status, $out, $err) = $c->try_sql(3, "SELECT payshard.set_node('n3', zone => 'again')");
is($status, 0, 'the map is not held meanwhile') || diag($err);
$session->query_safe('COMMIT');
$session->quit;
$c->wait_sql(3, "SELECT state = 'open' FROM payshard.shards WHERE shard = $shard", 60);
$c->start(1);
$p->assert_kept('the primary was lost meanwhile');
done_testing();
