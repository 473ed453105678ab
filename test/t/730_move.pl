# A fourth server is added while payments run at all nodes, and a rebalance moves
# shards to it (J3 to J5): no client hears an error, nothing is lost or doubled, all
# copies are equal, each shard has two copies in sync all the time, and who held a
# shard before has nothing left of it.  The longest time for which commits waited is
# printed, as payshard.jobs has it.
#
# Method: clients at each node pay until the moves are over; maps in the history are
# looked through for a shard with one copy.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 16, conf => "payshard.move_shards = 2\n");
my $p = PayshardPayments->new($c, accounts => 128, seconds => 120);

# The least number of copies in sync that any shard had, by the history as node i has it.
sub least_copies
{
	my ($i, $since) = @_;
	return $c->sql($i, <<"SQL");
WITH change AS MATERIALIZED (
	SELECT e.epoch, e.node, e.kind, s.shard FROM payshard.events e, unnest(e.shards) s(shard) WHERE e.kind LIKE 'placement%'
)
SELECT min(n) FROM (SELECT h.epoch, x.shard, count(*) FILTER (WHERE x.kind = 'placement_in_sync') AS n
	FROM payshard.map_history h, LATERAL (SELECT DISTINCT ON (c.shard, c.node) c.shard, c.kind FROM change c
		WHERE c.epoch <= h.epoch ORDER BY c.shard, c.node, c.epoch DESC) x
	WHERE h.epoch >= $since GROUP BY 1, 2) y
SQL
}

# Waits until no node has rows of shards that it does not hold.
sub wait_swept
{
	my ($name) = @_;
	foreach my $i (grep { $c->is_running($_) } 1 .. $c->{nodes})
	{
		$c->wait_sql($i, "SELECT count(*) FROM payshard.full_copy WHERE reason <> 'not held'", 60, '0');
		my $rows = $c->sql($i, <<"SQL");
SELECT coalesce(sum(x.n), 0) FROM (SELECT s, (SELECT count(*) FROM payshard.peer_rows('public.payments', s))
	+ (SELECT count(*) FROM payshard.peer_rows('public.accounts', s)) AS n FROM generate_series(0, 15) s
	WHERE NOT EXISTS (SELECT FROM payshard.placements p WHERE p.shard = s AND p.node = 'n$i')) x
SQL
		is($rows, '0', "$name: node $i has nothing of shards that it does not hold");
	}
	return;
}

is($c->sql(1, 'SELECT count(*) FROM payshard.rebalance_plan()'), '0', 'nothing is to be moved yet');
is($c->sql(1, 'SELECT payshard.rebalance_start()'), '0', 'and nothing is ordered');
is($c->sql(1, 'SELECT payshard.rebalance_wait()'), 't', 'and nothing is waited for');

sub pay { my ($n, @nodes) = @_; $p->start($_, $n, accounts => [ $p->accounts_at($_, 1) ]) foreach @nodes; return; }

pay(100, 1 .. 3);
$p->finish;
my $four = $c->new_server;
my $begun = $c->sql(1, 'SELECT max(epoch) FROM payshard.map_history');
pay(600, 1 .. 3);
# Reads of all shards go on, too: one copy of each account, at any time.
my $reads = "$p->{dir}/reads";
my $reader = fork() // die;
if ($reader == 0)
{
	open STDOUT, '>', "$reads.out"; open STDERR, '>', "$reads.err";
	open my $in, '>', "$reads.sql" or die; print $in "SELECT count(*) FROM accounts;\n" x 400; close $in;
	exec { 'psql' } 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $c->node(2)->connstr('postgres'), '-f', "$reads.sql" or POSIX::_exit(1);
}
$c->add_node($four, zone => 'z4');
my $plan = $c->sql(2, 'SELECT shard, from_node, to_node, bytes > 0, reason FROM payshard.rebalance_plan() ORDER BY 1, 2');
note($plan);
my $n_moves = grep { /ring$/ } split /\n/, $plan;
cmp_ok($n_moves, '>=', 6, 'about a fourth of the copies would move');
cmp_ok($n_moves, '<=', 14, 'and not many more');
like($plan, qr/^\d+\|n[123]\|n4\|t\|ring$/m, 'with their sizes');
is($c->sql(1, "SELECT placements, load, placements_after > 0 FROM payshard.balance WHERE node = 'n4'"), '0|0|t',
	'balance shows the node before and after');

cmp_ok($c->sql(1, 'SELECT payshard.rebalance_start()'), '>', 0, 'a rebalance begins, and the call returns');
is($c->sql(3, "SELECT payshard.rebalance_wait('2 minutes')"), 't', 'it ends, as another node sees it, too');
my $is_loaded = grep { !PayshardPayments::is_through($_) } @{ $p->{clients} };
note("clients still at work: $is_loaded");
$p->finish;
waitpid($reader, 0);
my %read;
$read{$_}++ foreach split /\n/, PostgreSQL::Test::Utils::slurp_file("$reads.out") . PostgreSQL::Test::Utils::slurp_file("$reads.err");
note('reads of all shards: ' . join(', ', map { "$_: $read{$_}" } sort keys %read));
is(join(', ', grep { /^\d+$/ && $_ != 128 } keys %read), '', 'no read of all shards missed one, or saw one twice');
my %failed;
$failed{ $p->{state}{$_} // 'none' }++ foreach grep { $p->{outcome}{$_} ne 'ok' } keys %{ $p->{outcome} };
is(join(', ', map { "$_: $failed{$_}" } sort keys %failed), '', 'no client heard an error');
is($c->sql(1, 'SELECT count(*) FROM payshard.rebalance_plan()'), '0', 'nothing more is to be moved');
is($c->sql(1, 'SELECT count(*) FROM payshard.ring() WHERE NOT as_chosen'), '0', 'every shard is where the ring has it');
is(least_copies(1, $begun), '2', 'no shard ever had fewer than two copies in sync');
wait_swept('rebalance');
$p->assert_kept('moved under load');

# What is told of it: on each node, as soon as the others' notes are there.
$c->wait_sql(2, "SELECT phase, shards_left, bytes > 0 AND bytes_done = bytes, pause_ms > 0, ended > started, eta IS NULL "
	  . "FROM payshard.jobs WHERE reason = 'rebalance'", 30, 'done|0|t|t|t|t');
note('payshard.jobs: ' . $c->sql(2, "SELECT * FROM payshard.jobs"));
note("balance after it:\n" . $c->sql(1, 'SELECT node, placements, primaries, load FROM payshard.balance'));
note('longest pause of commits: ' . $c->sql(2, 'SELECT max(pause_ms) FROM payshard.jobs') . ' ms');

# A node without weight is emptied by a rebalance; stop, and start again.
$c->sql(1, "SELECT payshard.set_node('n2', weight => 0)");
$c->sql($_, q(ALTER SYSTEM SET payshard.copy_rate = '1kB')) foreach 1 .. 4;
$c->sql($_, 'SELECT pg_reload_conf()') foreach 1 .. 4;
pay(100, 1, 3, 4);
$c->sql(4, 'SELECT payshard.rebalance_start()');
$c->wait_sql(4, "SELECT count(*) > 0 FROM payshard.moves WHERE phase = 'copying'", 30);
is($c->sql(1, "SELECT payshard.rebalance_wait('10 ms')"), 'f', 'a slow copy is waited for no longer than asked');
$c->sql(3, 'SELECT payshard.rebalance_stop()');
$c->wait_sql(3, 'SELECT count(*) FROM payshard.moves', 30, '0');
is($c->sql(3, "SELECT count(*) FROM payshard.placements WHERE moving IS NOT NULL"), '0', 'stopped: nothing is moved any more');
is($c->sql(3, "SELECT phase FROM payshard.jobs ORDER BY job DESC LIMIT 1"), 'stopped', 'and the job says so');
$p->assert_kept('stopped amid a copy');
is($c->sql(3, 'SELECT max(n) FROM (SELECT count(*) AS n FROM payshard.placements GROUP BY shard) x'), '2', 'no copy too many is left');
$c->sql($_, 'ALTER SYSTEM RESET payshard.copy_rate') foreach 1 .. 4;
$c->sql($_, 'SELECT pg_reload_conf()') foreach 1 .. 4;
pay(100, 1, 3, 4);
$c->sql(4, 'SELECT payshard.rebalance_start()');
is($c->sql(4, "SELECT payshard.rebalance_wait('2 minutes')"), 't', 'started again, it ends');
is($c->sql(4, "SELECT count(*) FROM payshard.placements WHERE node = 'n2'"), '0', 'the node without weight holds nothing');
wait_swept('no weight');
$p->assert_kept('a node without weight is emptied');

# And gets shards again, which it has held before: it must not take its own rows for theirs.
$c->sql(1, "SELECT payshard.set_node('n2', weight => 1)");
pay(100, 1, 3, 4);
$c->sql(1, 'SELECT payshard.rebalance_start()');
is($c->sql(1, "SELECT payshard.rebalance_wait('2 minutes')"), 't', 'given weight again, it gets shards');
is($c->sql(1, 'SELECT count(*) FROM payshard.ring() WHERE NOT as_chosen'), '0', 'those it had');
$p->assert_kept('there and back');
is($c->sql($_, 'SELECT sum(falls) FROM payshard.leases'), '0', "what was moved away is no fall on node $_") foreach 1 .. 4;
is($c->sql($_, 'SELECT count(*) FROM payshard.divergent_rows'), '0', "nothing diverged on node $_") foreach 1 .. 4;
is($c->sql($_, 'SELECT count(*) FROM payshard.dirty_key'), '0', "no notes are left on node $_") foreach 1 .. 4;
done_testing();
