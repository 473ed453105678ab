# Somebody changes rows of a placement behind payshard's back while it is out:
# the digests differ at rejoin (J4), it gets a full copy, an event says so, and
# what was there is kept in payshard.divergent_rows.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);
my ($one, $two) = $p->accounts_at(1);
my $alien = $c->sql(1, "SELECT min(i) FROM generate_series(100000, 101000) i WHERE payshard.shard_for('accounts', i::bigint) = $p->{shard}{$two}");

foreach my $how ('changed', 'missing', 'too many')
{
	$c->stop(2);
	$p->pay(1, $one);
	# Before payshard is loaded again: a single-user session on the stopped server, no triggers.
	my %sql = (
		changed => "UPDATE $p->{partition}{accounts}{$p->{shard}{$two}} SET balance = balance + 1000000 WHERE id = $two",
		missing => "DELETE FROM $p->{partition}{accounts}{$p->{shard}{$two}} WHERE id = $two",
		'too many' => "INSERT INTO $p->{partition}{accounts}{$p->{shard}{$two}} VALUES ($alien, 7)");
	my $sql = $sql{$how};
	my $from = $c->log_size(1);
	PostgreSQL::Test::Utils::run_log(
		[ 'postgres', '--single', '-D', $c->node(2)->data_dir, '-c', 'session_replication_role=replica',
			'-c', 'shared_preload_libraries=', 'postgres' ],
		'<', \"SET session_replication_role = replica;\nALTER TABLE $p->{partition}{accounts}{$p->{shard}{$two}} DISABLE TRIGGER ALL;\n$sql;\nALTER TABLE $p->{partition}{accounts}{$p->{shard}{$two}} ENABLE ALWAYS TRIGGER zz_payshard_capture;\n");
	$c->start(2);
	$c->wait_log(1, 'differs after its dirty keys were copied', 60, $from);
	ok(1, "a row is $how: the difference is found and said");
	$p->assert_kept("a row is $how");
	is($c->sql(2, "SELECT count(*) > 0 FROM payshard.divergent_rows WHERE shard = $p->{shard}{$two}"), 't', "a row is $how: what was there is kept")
	  if $how ne 'missing';
}
done_testing();
