# doc/operations.md, the page for the person on call: each line of SQL in it is run as
# it stands there, on the node that its prompt names, in an order in which the tasks make
# sense; what the page says of the answer is compared.  A line that this test does not run
# fails it, so a new one on the page needs a step here.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16, auto => 1, conf => "restart_after_crash = on\n");
$c->sql(1, <<'SQL');
CREATE TABLE payments (account_id bigint, payment_id text, amount bigint, PRIMARY KEY (account_id, payment_id));
INSERT INTO payments VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4), (5, 'e', 5), (6, 'f', 6);
SELECT payshard.create_distributed_table('payments', 'account_id');
SQL
my %server = (n1 => 1, n2 => 2, n3 => 3);		# name of a node => number of its server

# The page's SQL: [node, statement], a line each, without prompt and comment.
my @lines;
foreach my $line (split /\n/, PostgreSQL::Test::Utils::slurp_file('doc/operations.md'))
{
	my ($node, $sql) = $line =~ /^ {4,}(?:(n\d)=# )?((?:SELECT|CREATE) .*)$/ or next;
	$sql =~ s/;\s*--.*|;\s*$//;
	push @lines, [ $node // 'n1', $sql ];
}
push @lines, [ 'n1', 'SELECT payshard.status()' ];	# of its psql command
my @left = @lines;

# Runs the next line that matches: (answer, error).
sub run
{
	my ($pattern) = @_;
	my ($line) = grep { $_->[1] =~ $pattern } @left, @lines;
	BAIL_OUT("doc/operations.md has no line $pattern") unless $line;
	@left = grep { $_ != $line } @left;
	my ($node, $sql) = @$line;
	$sql =~ s/host=10\.0\.0\.(\d) dbname=pay/$c->conninfo($server{"n$1"})/e;
	my ($status, $out, $err) = $c->try_sql($server{$node}, $sql);
	note("$node: $sql\n$out$err");
	return ($out, $err);
}

sub answers
{
	my ($pattern, $wanted, $name) = @_;
	my ($out, $err) = run($pattern);
	return ($err eq '' && like($out, $wanted, $name)) || ($err ne '' && (fail($name) || diag($err)));
}

# Makes an empty server for the node of this name.
sub new_server_of
{
	my ($name) = @_;
	$server{$name} = $c->new_server;
	return;
}

my $copies = "SELECT count(*) FROM payshard.placements WHERE node = 'n3' AND state = 'in_sync'";

answers(qr/status/, qr/^16 shards accept payments\./, 'first look');
answers(qr/FROM payments WHERE/, qr/^$/, 'a payment that is not there');

# Planned work, and drills.
answers(qr/start_maintenance/, qr/^\d+$/, 'planned work begins');
$c->stop(2);
$c->start(2);
answers(qr/stop_maintenance/, qr/^\d+$/, 'and ends');
answers(qr/drill\('n2'\)/, qr/^n2\|kill\|/, 'a drill');
answers(qr/drill\('n2', 'stop'\)/, qr/^n2\|stop\|/, 'a drill without an interruption');
answers(qr/state <> 'in_sync'/, qr/^0$/, 'all placements are in sync');

# A node is gone, with its disk.
$c->kill9(3, all => 1);
$c->wait_sql(1, "SELECT count(*) = 0 FROM payshard.shards WHERE primary_node = 'n3' OR state <> 'open'", 60);
answers(qr/reason FROM payshard.incidents/, qr/^failover\|n3\|automatic failover of node n3: it .*, 2 of 3 nodes agree$/, 'the incident');
answers(qr/not_failed_over/, qr/^$/, 'no reason not to');
like((run(qr/failover\('n3'\)/))[1], qr/has been failed over already/, 'the DBA has nothing to do');
new_server_of('n3');
run(qr/CREATE EXTENSION/);
answers(qr/add_node\('n3'/, qr/^3$/, 'a lost disk');
$c->wait_sql(1, "SELECT count(*) = 0 FROM payshard.placements WHERE state <> 'in_sync'", 60);
cmp_ok($c->sql(1, $copies), '>', 0, 'it has its copies again');

# Nodes come and go.
new_server_of('n4');
$c->sql(1, "SELECT payshard.add_node('n4', " . PayshardCluster::quote($c->conninfo($server{n4})) . ", zone => 'd')");
answers(qr/rebalance_plan/, qr/\|n4\|/, 'a plan');
answers(qr/payshard\.balance$/, qr/^n1\|/, 'the balance');
answers(qr/rebalance_start/, qr/^[1-9]\d*$/, 'shards begin to move');
answers(qr/payshard\.jobs/, qr/\|rebalance\|/, 'the job');
answers(qr/rebalance_wait/, qr/^t$/, 'they have moved');
answers(qr/remove_node\('n4'/, qr/^$/, 'a node is removed');
answers(qr/payshard\.verify/, qr/^$/, 'all copies are equal');

is_deeply([ map { $_->[1] } @left ], [], 'no line of the page was left out');
done_testing();
