# What a DBA can restore from: cold copies of all directories; and one server's base
# backup, which holds what that node holds, as an ordinary database that pg_dump reads.
# pg_dump at a node that is running gives the schema; for the data it says what to do.
#
# Method: payments before and after the copies are taken; all directories are put back:
# those before are there, once, on all copies, and the cluster takes payments.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use PostgreSQL::Test::Utils ();
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "wal_level = replica\nmax_wal_senders = 4\n");
my $p = PayshardPayments->new($c);

sub run { PostgreSQL::Test::Utils::system_or_bail(@_); return; }
sub payments { return $c->sql($_[0], 'SELECT count(*), sum(amount) FROM payments'); }

# (exit status, stdout, stderr)
sub dump_of
{
	my ($server, @options) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'pg_dump', '-d', $server->connstr('postgres'), @options ], '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

$p->start($_, 30) foreach 1, 2;
$p->finish;
$p->assert_kept('before');
my $before = payments(1);

# A node that is running.
my ($status, $out, $err) = dump_of($c->node(1), '--schema-only');
is($status, 0, 'pg_dump --schema-only at a node');
like($out, qr/CREATE TABLE public\.payments/, '... has the tables');
($status, $out, $err) = dump_of($c->node(1), '--data-only');
isnt($status, 0, 'pg_dump of the data');
like($err, qr/HINT: .*doc\/operations\.md/, '... is refused, and where to read on is said');

# One server's base backup, as an ordinary database.
$c->node(2)->backup('base');
my $alone = PostgreSQL::Test::Cluster->new('alone');
$alone->init_from_backup($c->node(2), 'base');
$alone->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$alone->start;
is($alone->safe_psql('postgres', 'SELECT count(*), sum(amount) FROM payments'), $before, 'a base backup of a node that holds all shards, without payshard: all payments');
($status, $out, $err) = dump_of($alone, '-t', 'accounts', '-t', 'payments', '-t', 'payshard_data.*');
is($status, 0, 'pg_dump reads it') || diag($err);
my $n_rows = () = $out =~ /^\d+\t\d+\t\d+\tx*$/mg;
is($n_rows, (split /\|/, $before)[0], '... and has a row for each payment');
$alone->stop;

# All directories, cold.
sub directory { return $c->node($_[0])->data_dir; }
$c->stop($_) foreach 1 .. 3;
run('cp', '-a', directory($_), directory($_) . '.cold') foreach 1 .. 3;
$c->start($_) foreach 1 .. 3;
$c->wait_all_in_sync;
$p->wait_open;
my $n_then = (split /\|/, payments(1))[0];
cmp_ok($n_then, '>', (split /\|/, $before)[0], 'payments after the copies were taken');
$c->stop($_) foreach 1 .. 3;
foreach my $i (1 .. 3)
{
	run('rm', '-rf', directory($i));
	run('mv', directory($i) . '.cold', directory($i));
}
$c->start($_) foreach 1 .. 3;
$c->wait_all_in_sync;
is(payments($_), $before, "all directories put back: node $_ has the payments of then") foreach 1 .. 3;
$c->assert_copies_equal;
my ($account) = $p->accounts_at(1);
$c->wait_until('a payment', 60, sub { return scalar($p->pay(1, $account)) eq 'ok'; });
pass('and takes new ones');
done_testing();
