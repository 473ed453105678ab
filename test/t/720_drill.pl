# A drill: a node dies by a real crash, comes back, and the times are measured.
use strict;
use warnings;
use IPC::Run ();
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16, auto => 1, conf => "restart_after_crash = on\n");
my $p = PayshardPayments->new($c, accounts => 32);

sub refused
{
	my ($node, $sql, $state, $words, $name) = @_;
	my ($status, $out, $err) = $c->try_sql($node, $sql);
	return ok($status != 0 && $err =~ /ERROR:  $state: $words/, $name) || diag($err);
}

my $primaries = "SELECT coalesce(string_agg(shard::text, ',' ORDER BY shard), '') FROM payshard.shards WHERE primary_node = 'n2'";
my $before = $c->sql(1, $primaries);

refused(2, "SELECT payshard.drill('n2')", '55000', 'node "n2" cannot lead its own drill', 'nobody leads its own drill');
refused(1, "SELECT payshard.drill('n2', 'burn')", '22023', '"burn" is no kind', 'other kinds are refused');
refused(1, "SELECT payshard.peer_crash(1)", '55000', 'this node is not ready', 'a wrong incarnation kills nobody');
$c->sql(2, 'ALTER SYSTEM SET restart_after_crash = off');
$c->sql(2, 'SELECT pg_reload_conf()');
$c->wait_sql(2, "SELECT current_setting('restart_after_crash') = 'off'");
refused(1, "SELECT payshard.drill('n2')", '55000', 'node "n2" would not come back', 'who would not come back is not killed');
$c->sql(2, 'ALTER SYSTEM RESET restart_after_crash');
$c->sql(2, 'SELECT pg_reload_conf()');
$c->wait_sql(2, "SELECT current_setting('restart_after_crash') = 'on'");

# Who has sent a statement before the map changed is refused, and goes elsewhere; not cut off.
my ($account) = $p->accounts_at(2);
my $was = $c->sql(2, 'SELECT incarnation FROM payshard.nodes WHERE name = \'n2\'');
$c->arm_fault(2, 'route.before_map', 'pause');
$p->start(1, 1, accounts => [$account]);
$c->wait_sql(2, "SELECT payshard_fault.paused('route.before_map')");
my $said = '';
my $drill = IPC::Run::start([ 'psql', '-XAtq', '-d', $c->node(1)->connstr('postgres'), '-c', "SELECT count(*) FROM payshard.drill('n2', 'stop')" ],
	'<', \undef, '&>', \$said);
$c->wait_sql(3, "SELECT count(*) = 0 FROM payshard.shards WHERE primary_node = 'n2'");
$c->wait_sql(1, "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%peer_is_quiet%' OR query LIKE '%drill%'");
is($c->sql(2, 'SELECT payshard.peer_is_quiet()'), 'f', 'a statement of another node runs at the node of the drill');
is($c->sql(2, 'SELECT incarnation FROM payshard.nodes WHERE name = \'n2\''), $was, '... which is not killed yet');
$c->sql(2, "SELECT payshard_fault.disarm('route.before_map')");
$drill->finish;
is($said, "1\n", 'then the drill goes on');
$p->finish;
is(join(', ', values %{ $p->{state} }), '', '... and the payment is taken');
delete $p->{state};

foreach my $how (qw(kill stop))
{
	my $incarnation = $c->sql(1, "SELECT incarnation FROM payshard.nodes WHERE name = 'n2'");
	foreach my $node (1, 3) { $p->start($node, 300, accounts => [ 1 .. 32 ]); }
	# whether the node can still answer that it dies is up to its postmaster: here it cannot
	$c->arm_fault(2, 'drill.killed', 'pause') if $how eq 'kill';
	my $row = $c->sql(1, "SELECT * FROM payshard.drill('n2', '$how')");
	my ($name, $kind, $switchover, $recovery, $back, $failed_over) = split /\|/, $row;
	diag(sprintf '%s: recovery %.0f ms, in sync after %.0f ms, switchover %.0f ms, failed over %s', $how, $recovery, $back, $switchover, $failed_over);
	ok($recovery > 0 && $back >= $recovery, "$how: it measures");
	cmp_ok($c->sql(1, "SELECT incarnation FROM payshard.nodes WHERE name = 'n2'"), '>', $incarnation, "$how: it was a crash");
	is($c->sql(1, $primaries), $before, "$how: it is primary again of what it was");
	is($c->sql(1, "SELECT state FROM payshard.nodes WHERE name = 'n2'"), 'up', "$how: it is up");
	$p->finish;
	my @failed = grep { ($p->{state}{$_} // '') ne '' } sort keys %{ $p->{state} };
	is(scalar(@failed), 0, 'stop: no payment failed') || diag(join ', ', map { "$_: $p->{state}{$_}" } @failed) if $how eq 'stop';
	delete $p->{state};
}
is($c->sql(1, "SELECT count(*), bool_and(planned), count(*) FILTER (WHERE kind = 'drill') FROM payshard.incidents"), '3|t|3', 'three incidents of kind drill')
  || diag($c->sql(1, 'SELECT node, kind, failed, open_again, back_in_sync, planned, reason FROM payshard.incidents'));
# the incident's recovery time is what the drill has measured, but for the look at the map
my $apart = $c->sql(1, "SELECT string_agg(round(extract(epoch FROM open_again - failed) * 1000)::text, ' ' ORDER BY failed) FROM payshard.incidents");
note("recovery by the incidents: $apart ms");
like($c->sql(3, "SELECT detail FROM payshard.planned WHERE kind = 'drill' ORDER BY since OFFSET 1 LIMIT 1"), qr/^kill: open again after \d+ ms/, 'other nodes have it written down, too')
  if $c->wait_sql(3, "SELECT count(*) = 3 FROM payshard.planned WHERE kind = 'drill' AND until IS NOT NULL", 30);
is($c->sql(1, "SELECT incidents, transactions_lost FROM payshard.recovery_stats"), '0|0', 'drills do not count as failures');
$p->assert_kept('after drills');
done_testing();
