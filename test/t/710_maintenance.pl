# Planned work: a node gives its shards away, is stopped and started, and takes them
# back; no client notices, nothing replaces its copies, and the time is planned time.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16, auto => 1, conf => "payshard.replace_after = 2s\n");
my $p = PayshardPayments->new($c, accounts => 32);

sub refused
{
	my ($node, $sql, $state, $words, $name) = @_;
	my ($status, $out, $err) = $c->try_sql($node, $sql);
	return ok($status != 0 && $err =~ /ERROR:  $state: $words/, $name) || diag($err);
}

sub primaries
{
	my ($node) = @_;
	return $c->sql(1, "SELECT coalesce(string_agg(shard::text, ',' ORDER BY shard), '') FROM payshard.shards WHERE primary_node = 'n$node'");
}

refused(1, "SELECT payshard.start_maintenance('n9')", '42704', 'there is no node', 'an unknown node is refused');
refused(1, "SELECT payshard.stop_maintenance('n2')", '55000', 'node "n2" is not in maintenance', 'who is not in maintenance does not leave it');
refused(1, "SELECT * FROM payshard.switchover('n2', 'n2')", '22023', 'node "n2" cannot give', 'nobody switches over to itself');
refused(1, "SELECT * FROM payshard.switchover(99)", '22023', 'there is no shard 99', 'an unknown shard is refused');
refused(1, "SET payshard.min_in_sync = 2; SELECT 1", '55P02', '', 'min_in_sync is of the server');

# a shard alone, and to somebody who has no copy
my ($shard, $from) = split /\|/, $c->sql(1, "SELECT shard, primary_node FROM payshard.shards ORDER BY shard LIMIT 1");
my $without = $c->sql(1, "SELECT n.name FROM payshard.nodes n WHERE NOT EXISTS (SELECT FROM payshard.placements p WHERE p.shard = $shard AND p.node = n.name)");
refused(1, "SELECT * FROM payshard.switchover($shard, '$without')", '55000', "node \"$without\" cannot become primary", 'who has no copy does not become primary');
my ($to) = $c->sql(2, "SELECT to_node FROM payshard.switchover($shard)");
is($c->sql(3, "SELECT primary_node FROM payshard.shards WHERE shard = $shard"), $to, "shard $shard alone goes from $from to $to");
is($c->sql(3, "SELECT to_node FROM payshard.switchover($shard, '$from')"), $from, 'and back');

# a transaction that does not end is in the way, and is named
my ($account) = $p->accounts_at(2);
my $session = $c->node(2)->background_psql('postgres');
$session->query_safe("BEGIN; UPDATE accounts SET balance = balance WHERE id = $account");
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my ($status, $out, $err) = $c->try_sql(2, "SET payshard.switchover_timeout = '1s'; SET payshard.switchover_pause = '200ms'; SELECT * FROM payshard.switchover($p->{shard}{$account})");
ok($err =~ /55P03.*process $pid on node "n2"/s, 'a transaction that does not end is named') || diag($err);
is($p->pay(1, ($p->accounts_at(1))[0]), 'ok', 'others pay on');
$session->query_safe('COMMIT');
$session->quit;

my $before = primaries(2);
isnt($before, '', 'n2 is primary of something');
foreach my $node (1, 3) { $p->start($node, 600, accounts => [ 1 .. 32 ]); }
my $n = $c->sql(1, "SELECT payshard.start_maintenance('n2', 'new kernel')");
is($n, scalar(my @s = split /,/, $before), 'all its shards are given away');
is(primaries(2), '', 'it is primary of nothing');
is($c->sql(3, "SELECT state FROM payshard.nodes WHERE name = 'n2'"), 'maintenance', 'all see it');
refused(1, "SELECT payshard.start_maintenance('n3')", '55000', 'node "n3" cannot go into maintenance: no majority', 'a second one is refused');
$c->node(2)->stop('fast');
$c->wait_sql(1, "SELECT count(*) = 0 FROM payshard.placements WHERE node = 'n2' AND state = 'in_sync'", 20);
$p->finish;
is(join(', ', map { "$_: $p->{state}{$_}" } sort keys %{ $p->{state} }), '', 'no payment failed while it stopped');
ok(index($c->sql(1, 'SELECT payshard.status()'), 'n2 is in maintenance') > 0, 'status says so') || diag($c->sql(1, 'SELECT payshard.status()'));
# longer than payshard.replace_after
$c->wait_sql(1, "SELECT max(heard_ms) > 4000 FROM payshard.nodes WHERE name = 'n2'", 30);
is($c->sql(1, 'SELECT count(*) FROM payshard.placements WHERE moving IS NOT NULL'), '0', 'nothing takes its place');
$c->start(2);
foreach my $node (1 .. 3) { $p->start($node, 300, accounts => [ 1 .. 32 ]); }
is($c->sql(1, "SELECT payshard.stop_maintenance('n2')"), $n, 'its shards come back');
is(primaries(2), $before, 'the same');
$p->finish;
is(join(', ', map { "$_: $p->{state}{$_}" } sort keys %{ $p->{state} }), '', 'no payment failed');
is($c->sql(1, "SELECT count(*) FILTER (WHERE planned) > 0 AND count(*) FILTER (WHERE NOT planned) = 0 FROM payshard.incidents WHERE node = 'n2'"), 't',
	'its incidents are planned') || diag($c->sql(1, 'SELECT node, kind, failed, open_again, back_in_sync, planned, reason FROM payshard.incidents'));
is($c->sql(1, "SELECT planned_s > 4, down_s, nines IS NULL FROM payshard.availability WHERE scope = 'node' AND name = 'n2'"), 't|0|t', 'its time is planned time')
  || diag($c->sql(1, 'SELECT * FROM payshard.availability LIMIT 4'));
is($c->sql(1, "SELECT down_s FROM payshard.availability WHERE scope = 'cluster'"), '0', 'and none of the cluster is lost')
  || diag($c->sql(1, 'SELECT * FROM payshard.incidents'));
is($c->sql(1, "SELECT kind, detail FROM payshard.planned"), 'maintenance|maintenance of node n2: new kernel', 'with its reason');
$p->assert_kept('after maintenance');
done_testing();
