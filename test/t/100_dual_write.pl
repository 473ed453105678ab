# A payment stands on two servers before the client hears "committed" (W1 to W5):
# journaled at the secondary before the local commit, applied there only when it is
# decided, so that no secondary shows what its primary has not committed.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 30s\n");
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_between(1, 2);
my $copy = $p->copy('payments', $account);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1, 2;

# Rows of the payments table in the shard at a node, as its own copy has them.
sub rows { return $c->sql($_[0], "SELECT count(*) FROM $copy"); }
sub journaled { return $c->sql(2, 'SELECT count(*) FROM payshard.journal'); }

# Where the primary stands still => rows it shows, rows the secondary shows, in the journal.
my $shown = 0;
foreach my $case (
	[ 'commit.before_enqueue', 0, 0, 0, 'before it is enqueued: nowhere' ],
	[ 'commit.after_acks', 0, 0, 1, 'acked, not committed: in the journal only' ],
	[ 'commit.before_dirty', 0, 0, 1, 'before the point of no return: in the journal only' ],
	[ 'commit.after_local', 1, 0, 1, 'committed here, not yet decided for others: in the journal' ])
{
	my ($point, $here, $there, $in_journal, $what) = @$case;
	$p->wait_journals_empty;
	$c->sql(1, "SELECT payshard_fault.arm('$point', 'pause')");
	$p->start(1, 1, accounts => [$account]);
	$c->wait_sql(1, "SELECT payshard_fault.paused('$point')");
	is(rows(1), $shown + $here, "$what: the primary");
	is(rows(2), $shown + $there, "$what: the secondary");
	is(journaled(), $in_journal, "$what: the journal");
	$c->sql(1, "SELECT payshard_fault.disarm('$point')");
	$p->finish;
	$shown++;
	$c->wait_sql(2, "SELECT count(*) = $shown FROM $copy");
}
is($p->tally, 'ok ' . $shown, 'all were acknowledged');

# Not acknowledged while the secondary has not journaled it: the client waits.
$c->sql(2, "SELECT payshard_fault.arm('receiver.before_commit', 'pause')");
my $client = $p->start(1, 1, accounts => [$account]);
$c->wait_sql(2, "SELECT payshard_fault.paused('receiver.before_commit')");
ok(!PayshardPayments::is_through($client), 'the client waits while the secondary has not committed its journal');
is(rows(1), $shown, 'and the primary shows nothing yet');
$c->sql(2, "SELECT payshard_fault.disarm('receiver.before_commit')");
$p->finish;
$p->assert_kept('dual write');

# Who writes to a partition directly is not let off: it is done at the primary and
# dually, or refused, wherever it is said.
foreach my $node (1, 2)
{
	my ($status, $out, $err) = $c->try_sql($node,
		"UPDATE $p->{partition}{payments}{$p->{shard}{$account}} SET note = 'direct at $node' WHERE account_id = $account");
	$p->wait_journals_empty;
	my @with = map { $c->sql($_, "SELECT count(*) FROM $copy l WHERE l LIKE '%direct at $node%'") } 1, 2;
	is($with[0], $with[1], "direct write at node $node: the same on both (psql $status)");
	$status == 0 ? cmp_ok($with[0], '>', 0, "direct write at node $node: done")
	  : like($err, qr/ERROR:  (?:25006|0A000|42)/, "direct write at node $node: refused");
}
$p->assert_kept('direct writes');

# TRUNCATE amid other changes of one transaction, and of transactions that are applied together.
$c->sql(1, "CREATE TABLE log (id bigint PRIMARY KEY, note text); SELECT payshard.create_distributed_table('log', 'id')");
my ($id) = $p->accounts_at(1);
my $shard = $c->sql(1, "SELECT payshard.shard_for('log', $id\::bigint)");
my ($one, $two, $three) = split /\n/, $c->sql(1, "SELECT i FROM generate_series(1, 1000) i WHERE payshard.shard_for('log', i::bigint) = $shard LIMIT 3");
my $partition = $c->sql(1, "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'log'::regclass AND inhrelid::regclass::text ~ '_$shard\$'");
$c->sql(1, "BEGIN; INSERT INTO log VALUES ($one, 'goes'); TRUNCATE $partition; INSERT INTO log VALUES ($two, 'stays for now'); COMMIT");
$c->sql(1, "BEGIN; DELETE FROM log WHERE id = $two; TRUNCATE $partition; INSERT INTO log VALUES ($three, 'stays'); COMMIT");
my $rows = "SELECT string_agg(split_part(l, E'\\t', 1), ',') FROM payshard.peer_rows('public.log', $shard) l";
is($c->sql(1, $rows), $three, 'TRUNCATE amid other changes: the primary');
$p->wait_journals_empty;
is($c->sql(2, $rows), $three, 'TRUNCATE amid other changes: the secondary');
is($c->sql(2, 'SELECT count(*) FROM payshard.divergent_rows'), '0', 'nothing diverged');
done_testing();
