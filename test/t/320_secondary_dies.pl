# A secondary dies, or stops answering, under load: writers pause and go on, no
# client hears an error (W6); with min_in_sync = 2 they are refused (57P03).
# When it is back it gets what it missed (J).
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8,
	conf => "payshard.peer_timeout = 1s\npayshard.call_timeout = 2s\n");
my $p = PayshardPayments->new($c);
my @own = $p->accounts_at(1);
my @all = (1 .. $p->{accounts});

sub no_errors
{
	my ($name) = @_;
	$p->finish;
	my @errors = map { "payment $_: $p->{outcome}{$_} " . ($p->{state}{$_} // '') } grep { $p->{outcome}{$_} ne 'ok' } keys %{ $p->{outcome} };
	return is("@errors", '', "$name: no client heard an error");
}

foreach my $how ('kill -9', 'SIGSTOP', 'fast')
{
	$p->start(1, 150) foreach 1 .. 3;
	$c->wait_until('payments to be under way', 30, sub { $c->sql(1, 'SELECT count(*) > 20 FROM payments') eq 't' });
	if ($how eq 'kill -9') { $c->kill9(2); }
	elsif ($how eq 'SIGSTOP') { $c->pause(2); }
	else { $c->stop(2); }
	no_errors($how);
	is(scalar($p->pay(1, $own[0])), 'ok', "$how: the shard has one copy and takes payments") || diag($p->{last_error});
	$how eq 'SIGSTOP' ? $c->resume(2) : $c->start(2);
	$p->assert_kept("secondary gone by $how, and back");
}

# min_in_sync = 2: nothing is done, and the client is told so; open again when it is back.
$c->node(1)->append_conf('postgresql.conf', "payshard.min_in_sync = 2\npayshard.gate_timeout = 5s\n");
$c->sql(1, 'SELECT pg_reload_conf()');
$c->wait_sql(1, "SELECT current_setting('payshard.min_in_sync') = '2'");
is(scalar($p->pay(1, $own[0])), 'ok', 'min_in_sync = 2 with two copies: accepted') || diag($p->{last_error});
$p->start(1, 40);
$c->kill9(2);
$p->finish;
my ($outcome, $state) = $p->pay(1, $own[0]);
is("$outcome $state", 'aborted 57P03', 'min_in_sync = 2 with one copy: refused') || diag($p->{last_error});
like($p->{last_error}, qr/DETAIL:.*min_in_sync.*HINT:/s, 'it says why and what to do');
$c->start(2);
$p->assert_kept('min_in_sync = 2');

done_testing();
