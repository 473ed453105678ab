# Two processes take one node back: the keeper was restarted, and does not know of the process that
# runs.  The second one ends at once.
#
# Method: the first stands still before the copy; the log of the server says when another was started.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 3, shards => 8, conf => "log_min_messages = debug1\n");
my $c = $k->cluster;
my $p = $k->payments;
my ($a, $b, $d) = $k->cast;
my ($account) = $p->accounts_at($a);
my $rejoins = "FROM pg_stat_activity WHERE backend_type LIKE 'payshard rejoin%'";
my $keeper = "FROM pg_stat_activity WHERE backend_type LIKE 'payshard keeper%'";

$k->put_out($a, $d, $account);
$k->arm($a, 'rejoin.before_copy');
$k->disarm($a, 'rejoin.before_teach');
$k->await_paused($a, 'rejoin.before_copy');
my $first = $c->sql($a, "SELECT pid $rejoins");
my $from = $c->log_size($a);
my $pid = $c->sql($a, "SELECT pid $keeper");
$c->sql($a, "SELECT pg_terminate_backend($pid)");
$c->wait_sql($a, "SELECT count(*) = 1 $keeper AND pid <> $pid");
$c->wait_log($a, qr/starting background worker process "payshard rejoin/, 60, $from);
$c->wait_log($a, qr/background worker "payshard rejoin[^"]*" \(PID \d+\) exited with exit code 0/, 60, $from);
is($c->sql($a, "SELECT string_agg(pid::text, ' ') $rejoins"), $first, 'the first one is alone');
is($c->sql($a, "SELECT payshard_fault.paused('rejoin.before_copy')"), 't', 'where it was');
is($c->sql($a, "SELECT string_agg(DISTINCT p.state, ' ') FROM payshard.placements p JOIN payshard.shards s USING (shard) WHERE s.primary_node = 'n$a' AND p.node = 'n$d'"),
	'joining', 'and nobody has taken the node back meanwhile');
$k->disarm($a, 'rejoin.before_copy');
$p->assert_kept('afterwards');
done_testing();
