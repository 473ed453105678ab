# A primary stands still amid a copy of its rows: the node that gets them ends the copy's transaction by itself, and
# nothing there stays locked until TCP notices.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 3, shards => 8, conf => "payshard.call_timeout = 500ms\n");
my $c = $k->cluster;
my $p = $k->payments;
my ($a, $b, $d) = $k->cast;
my ($account) = $p->accounts_at($a);
my $amid = "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE state = 'idle in transaction' AND mode = 'RowExclusiveLock'";

$k->put_out($a, $d, $account);
$k->arm($a, 'rejoin.after_copy');
$k->disarm($a, 'rejoin.before_teach');
$k->await_paused($a, 'rejoin.after_copy');
is($c->sql($d, $amid), '1', 'a copy is amid its transaction');
ok(eval { $c->wait_sql($d, $amid, 60, '0'); 1 }, 'the node ends it') || diag($@);
$c->wait_log($d, qr/idle-in-transaction timeout/, 10);
is($c->sql($a, "SELECT payshard_fault.paused('rejoin.after_copy')"), 't', 'while the primary stands still');
$k->disarm($a, 'rejoin.after_copy');
$p->assert_kept('copied again');
done_testing();
