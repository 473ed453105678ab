# Somebody changes rows of a placement behind payshard's back while it is out:
# the digests differ at rejoin (J4), it gets a full copy, an event says so, and
# what was there is kept in payshard.divergent_rows, readable, up to a limit; rows that
# were only out of date are not.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);
my ($one) = $p->accounts_at(1);
my ($two) = grep { $_ != $one && $p->{shard}{$_} == $p->{shard}{$one} } $p->accounts_at(1);
# accounts that node 1 does not have, of shard $two
my @alien = split /\n/, $c->sql(1, "SELECT i FROM generate_series(100000, 110000) i "
	  . "WHERE payshard.shard_for('accounts', i::bigint) = $p->{shard}{$two} LIMIT 150");
my $accounts = $p->{partition}{accounts}{ $p->{shard}{$two} };
my $limit = 100;

# On the stopped node 2, before payshard is loaded again: a single-user session, no triggers.
sub behind_its_back
{
	my ($sql) = @_;
	my $script = "SET session_replication_role = replica;\nALTER TABLE $accounts DISABLE TRIGGER ALL;\n$sql;\n"
	  . "ALTER TABLE $accounts ENABLE ALWAYS TRIGGER zz_payshard_capture;\n";
	my @command = ('postgres', '--single', '-D', $c->node(2)->data_dir, '-c', 'shared_preload_libraries=', 'postgres');
	PostgreSQL::Test::Utils::run_log(\@command, '<', \$script, '>', \my $out) or die 'the single-user session failed';
	return;
}

# [how, what is done, rows kept, more that are not, what the first was]
foreach my $case (
	[ 'changed', "UPDATE $accounts SET balance = balance + 1000000 WHERE id = $two", 1, 0,
		qr/its primary had another row of this key\|$two\|1000\d\d\d/ ],
	[ 'missing', "DELETE FROM $accounts WHERE id = $two", 0, 0, qr/^$/ ],
	[ 'too many', "INSERT INTO $accounts VALUES ($alien[0], 7)", 1, 0, qr/its primary had no row of this key\|$alien[0]\|7/ ],
	[ 'one of far too many', "INSERT INTO $accounts VALUES " . join(', ', map { "($_, 7)" } @alien), $limit, @alien - $limit,
		qr/its primary had no row of this key\|\d+\|7/ ])
{
	my ($how, $sql, $kept, $more, $row) = @$case;
	$c->stop(2);
	$p->pay(1, $one);
	behind_its_back($sql);
	my $events = "SELECT count(*) FROM payshard.event_log WHERE kind = 'divergence' AND observer = 2 AND "
	  . "detail LIKE 'shard $p->{shard}{$two}: $kept rows %, $more more %'";
	my $n_events = $c->sql(1, $events);
	my $from = $c->log_size(1);
	$c->arm_fault(1, 'rejoin.before_digest', 'pause');
	$c->start(2);
	$c->wait_sql(1, "SELECT payshard_fault.paused('rejoin.before_digest')");
	# before the full copy a row of the same shard gets out of date there
	$c->arm_fault(1, 'rejoin.before_teach', 'pause');
	$c->sql(1, "SELECT payshard_fault.disarm('rejoin.before_digest')");
	$c->wait_log(1, 'differs after its dirty keys were copied', 60, $from);
	$c->wait_sql(1, "SELECT payshard_fault.paused('rejoin.before_teach')");
	is(scalar($p->pay(1, $one)), 'ok', "a row is $how: the difference is found and said");
	$c->sql(1, "SELECT payshard_fault.disarm('rejoin.before_teach')");
	$p->assert_kept("a row is $how");
	my $found = $c->sql(2, "SELECT what, found_json->>'id', found_json->>'balance' FROM payshard.divergent_rows "
		  . "WHERE shard = $p->{shard}{$two} ORDER BY 1, 2 LIMIT 1");
	like($found, $row, "a row is $how: what was there is kept");
	is($c->sql(2, 'SELECT count(*) FROM payshard.divergent_rows'), $kept, "a row is $how: nothing else is kept");
	# node 1 hears of it, too
	ok($c->wait_sql(1, $events, 60, $n_events + ($kept > 0)),
		"a row is $how: an event says how many are kept and how many are not");
	$c->sql(2, 'DELETE FROM payshard.divergent_rows');
}
done_testing();
