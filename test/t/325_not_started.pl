# A secondary whose server runs, but which has not started yet, acks nothing: nobody knows yet
# whether its data directory is its last one (M3).  The commit waits for it.
#
# Method: the secondary is paused before it takes an incarnation; a payment is made.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 10min\n");
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_between(1, 2);
my $active = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'";

$c->sql(2, 'CREATE EXTENSION payshard_fault');
is($p->pay(1, $account), 'ok', 'a payment before');
my $faults = $c->node(2)->data_dir . '/payshard_fault.conf';
$c->stop(2);
PostgreSQL::Test::Utils::append_to_file($faults, "start.before_incarnation pause 1\n");
chmod 0644, $faults;
$c->start(2);
$c->wait_sql(2, "SELECT payshard_fault.paused('start.before_incarnation')");
unlink $faults;

my $journal = $c->sql(2, 'SELECT coalesce(max(last_seq), 0) FROM payshard.journal WHERE origin = 1');
$p->start(1, 1, accounts => [$account]);
$c->wait_sql(1, $active);
my $offset = $c->log_size(1);
$c->wait_log(1, qr/connection to node "n2" closed: refused: this node has not started yet/, 60, $offset);
is($c->sql(2, 'SELECT coalesce(max(last_seq), 0) FROM payshard.journal WHERE origin = 1'), $journal, 'nothing is journaled before its start');
is($c->sql(1, $active), 't', 'the payment waits');
$c->sql(2, "SELECT payshard_fault.disarm('start.before_incarnation')");
$p->finish;
is($p->tally, 'ok 2', 'it is taken when the secondary has started');
$p->assert_kept('at the end');
done_testing();
