# A node wakes up in a data directory that is not its last one (M3): restored from a copy
# taken earlier.  It is a stranger: it never serves from it, its copies are rebuilt, and
# what it acknowledged meanwhile is not forgotten by the others.
use strict;
use warnings;
use File::Copy ();
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);

sub run { PostgreSQL::Test::Utils::system_or_bail(@_); return; }

# The directory of a stopped node, aside and back.
sub keep_directory { my $d = $c->node($_[0])->data_dir; run('cp', '-a', $d, "$d.old"); return; }
sub restore_directory { my $d = $c->node($_[0])->data_dir; run('rm', '-rf', $d); run('mv', "$d.old", $d); return; }

$p->pay(1, ($p->accounts_at(1))[0]) foreach 1 .. 3;

# As a secondary: node 2 is failed over first, so that it is primary of nothing.
$c->stop(2);
keep_directory(2);
$c->start(2);
$p->wait_in_sync;
$p->start($_, 40) foreach 1, 2;
$p->finish;
$c->stop(2);
$c->sql(1, "SELECT payshard.failover('n2')");
restore_directory(2);
my $from = $c->log_size(2);
$c->start(2);
$c->wait_log(2, 'as a stranger', 60, $from);
pass('a restored secondary knows that it is a stranger');
$p->assert_kept('restored secondary');

# As a primary: it must not serve at all; its copies elsewhere are what counts.
my ($primary) = grep { $p->accounts_at($_) } 1 .. 2;
my $other = 3 - $primary;
$c->stop($primary);
keep_directory($primary);
$c->start($primary);
$p->wait_in_sync;
$p->wait_open;
$p->start($primary, 40);
$p->finish;
$c->stop($primary);
restore_directory($primary);
$from = $c->log_size($primary);
$c->start($primary);
$c->wait_log($primary, 'what it held is gone', 60, $from);
my ($account) = $p->accounts_at($primary, $other);
isnt(scalar($p->pay($primary, $account)), 'ok', 'a restored primary does not serve');
# however often it is started and tries
foreach (1 .. 3)
{
	$c->restart($primary);
	$from = $c->log_size($primary);
	$c->wait_log($primary, 'what it held is gone', 60, $from);
}
is($c->sql($primary, 'SELECT payshard.incarnation()'), '0', 'however often it is started');
$c->sql($other, "SELECT payshard.failover('n$primary')");
$p->assert_kept('restored primary, failed over');
done_testing();
