# A primary dies under load and stays down; failover() gives its shards to the
# copies (F2 to F5), and the dead one comes back as a secondary by itself (J).
#
# Method: two data nodes and a witness.  Clients pay at both; one data node is
# killed, the DBA calls failover() from each of the other nodes in turn.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 1s\n");
my $p = PayshardPayments->new($c);

# A healthy node is not failed over, unless forced; a stranger's name is refused.
my ($status, $out, $err) = $c->try_sql(1, "SELECT payshard.failover('n2')");
like($err, qr/55000: node "n2" is healthy/, 'a healthy node is refused');
($status, $out, $err) = $c->try_sql(1, "SELECT payshard.failover('n1')");
like($err, qr/55000: .* cannot be failed over from itself/, 'a node does not fail over itself');
($status, $out, $err) = $c->try_sql(1, "SELECT payshard.failover('nobody')");
like($err, qr/42704: there is no node "nobody"/, 'an unknown node is refused');
$c->sql(1, 'CREATE ROLE clerk LOGIN');
($status, $out, $err) = $c->try_sql(1, "SET ROLE clerk; SELECT payshard.failover('n2')");
like($err, qr/42501/, 'who is no superuser is refused');

my ($victim, $survivor) = (1, 2);
foreach my $leader ('the other data node', 'the witness')
{
	$p->wait_in_sync;
	my @moved = $p->accounts_at($victim);
	# whoever became primary of all at the last round has all the clients
	$p->start($_, 120) foreach 1 .. 2;
	$p->start($_, 120) foreach 1 .. 2;
	$c->wait_until('payments to be under way', 30, sub { $c->sql($survivor, 'SELECT count(*) > 30 FROM payments') eq 't' });
	$c->kill9($victim, all => 1);
	my $by = $leader eq 'the witness' ? 3 : $survivor;
	$c->sql($by, "SELECT payshard.failover('n$victim')");
	my @mine = $p->accounts_at($survivor, $survivor);
	is(scalar(@mine), $p->{accounts}, "failover by $leader: the survivor is primary of all shards");
	is(scalar($p->pay($survivor, $moved[0])), 'ok', 'a shard of the dead primary takes payments') || diag($p->{last_error}) if @moved;
	($status, $out, $err) = $c->try_sql($by, "SELECT payshard.failover('n$victim')");
	like($err, qr/55000: .* has been failed over already/, 'a second failover is refused');
	$p->finish;
	$p->start($survivor, 60);
	$c->start($victim);
	$p->assert_kept("failover by $leader");
	($victim, $survivor) = ($survivor, $victim);
}

# Forced, against a primary that lives and has clients: their transactions end as 40001 or
# unknown, the node notices that it was deposed and comes back as a secondary.
my ($node) = grep { $p->accounts_at($_) } 1 .. 2;
my $other = 3 - $node;
$p->start($node, 200);
$c->wait_until('payments to be under way', 30, sub { $c->sql($node, 'SELECT count(*) > 30 FROM payments') eq 't' });
$c->sql($other, "SELECT payshard.failover('n$node', force => true)");
$p->finish;
$p->assert_kept('failover by force of a primary that lives');

done_testing();
