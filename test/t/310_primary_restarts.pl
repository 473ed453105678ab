# A primary dies under load and comes back by itself (F1): what it had sent but
# not committed is rolled forward or was told to nobody, and no help is needed.
#
# Method: clients pay at all primaries; one node is killed in the middle (as by
# a power cut, by SIGKILL of its postmaster, by an immediate stop), is started
# again, and the clients' logs are compared with all copies.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 8, conf => "payshard.peer_timeout = 1s\n");
my $p = PayshardPayments->new($c);

foreach my $how ('power cut', 'kill -9', 'immediate')
{
	$p->start($_, 150) foreach 1 .. 3;
	$p->start(2, 150);
	$c->wait_until('node 2 to have paid', 30, sub { $c->sql(2, 'SELECT count(*) > 20 FROM payments') eq 't' });
	$how eq 'immediate' ? $c->stop(2, 'immediate') : $c->kill9(2, all => $how eq 'power cut');
	$c->start(2);
	$p->assert_kept("primary ended by $how");
}

# Without load: nothing to settle, but a new incarnation, and open again at once.
$c->restart(2);
$p->assert_kept('primary restarted in peace');

# All at once: each is origin, secondary and voter.
$p->start($_, 100) foreach 1 .. 3;
$c->wait_until('payments to be under way', 30, sub { $c->sql(1, 'SELECT count(*) > 5 FROM payments') eq 't' });
$c->kill9($_, all => 1) foreach 1 .. 3;
$c->start($_) foreach 1 .. 3;
$p->assert_kept('all nodes lost power at once');

done_testing();
