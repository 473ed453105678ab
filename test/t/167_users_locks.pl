# A user who holds locks of his own, whatever they are, does not stop the payments
# of others: he cannot name the locks that nodes use among themselves.
#
# Method: a role without rights takes, on both data nodes, the advisory locks that have
# the numbers of the journals' locks, in both of their forms, and keeps them; payments
# go on and are applied.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.commit_timeout = 5s\n");
my $p = PayshardPayments->new($c);
my @held;

$c->sql(1, 'CREATE ROLE nobody LOGIN');
$c->sql(2, 'CREATE ROLE nobody LOGIN');
foreach my $i (1, 2)
{
	my $session = $c->node($i)->background_psql('postgres', on_error_die => 1);

	$session->query_safe('SET ROLE nobody');
	$session->query_safe('SELECT count(*) FROM (SELECT pg_advisory_lock(x\'70617973\'::int, n) FROM generate_series(0, 200) n OFFSET 0) l');
	$session->query_safe('SELECT pg_advisory_lock(1886611572, 1)');
	$session->query_safe('SELECT count(*) FROM (SELECT pg_advisory_lock((x\'70617973\'::bigint << 32) + n) FROM generate_series(0, 200) n OFFSET 0) l');
	push @held, $session;
}
$p->start($_, 20) foreach 1, 2;
$p->finish;
$c->wait_sql($_, 'SELECT count(*) FROM payshard.journal', 30, '0') foreach 1, 2;
pass('all that was journaled is applied');
$p->assert_kept('under locks of a user');

# The turn of proposers is such a lock, too: one session has it, another does not get it, and who has no right
# to be a peer cannot ask.
my $turn = 'SELECT payshard.peer_turn(true)';
my $one = $c->node(1)->background_psql('postgres', on_error_die => 1);
is($one->query_safe($turn), 't', 'the turn is had under locks of a user');
is($c->sql(1, $turn), 'f', 'by one');
is($one->query_safe('SELECT payshard.peer_turn(false)'), 't', 'who gives it back');
is($c->sql(1, $turn), 't', 'then by another, whose session ends');
is($one->query_safe($turn), 't', 'which gives it back, too');
$one->quit;
$_->quit foreach @held;
done_testing();
