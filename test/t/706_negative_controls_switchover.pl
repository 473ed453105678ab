# As 500, for the switchover (J5): each rule switched off makes the checker find a
# violation, and the same run with the rule kept does not.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 3, shards => 8, conf => "payshard.failover_wait = 10s\n");
my $c = $k->cluster;
my $p = $k->payments;
my $paid;						# the account of the last control
my %control;

# b applies nothing of a until the session ends
sub hold_apply
{
	my ($a, $b) = @_;
	my $incarnation = $c->sql($a, 'SELECT payshard.incarnation()');
	my $session = $c->node($b)->background_psql('postgres');
	$c->wait_until("node $b to apply nothing", 30, sub { return $session->query_safe("SELECT payshard.peer_hold($a, $incarnation, 1)") eq 't'; });
	return $session;
}

sub switchover
{
	my ($a, $b) = @_;
	return "SET payshard.switchover_timeout = '2s'; SET payshard.switchover_pause = '500ms'; "
	  . "SELECT * FROM payshard.switchover($p->{shard}{$paid}, 'n$b')";
}

sub cast
{
	my ($a, $b) = $k->cast;
	($paid) = $p->accounts_at($a);
	$k->pay($a, $paid);
	$p->wait_journals_empty;
	return ($a, $b);
}

# The next primary has not applied a payment of the last one, and takes another.
$control{'J5.applied'} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b) = cast();
	$k->rule_off($a, 'J5.applied') if $rule_off;
	my $session = hold_apply($a, $b);
	$k->pay($a, $paid);
	my ($status, $out, $err) = $c->try_sql($a, switchover($a, $b));
	die "the switchover: $status $err" if ($status == 0) != $rule_off;
	$k->pay($rule_off ? $b : $a, $paid);
	$session->quit;
};

# A payment is let in when all others are through.
$control{'J5.hold'} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b) = cast();
	$k->rule_off($a, 'J5.hold') if $rule_off;
	$k->arm($a, 'switch.drained');
	my $switch = $k->background($a, switchover($a, $b));
	$k->await_paused($a, 'switch.drained');
	my $session = hold_apply($a, $b);
	if ($rule_off) { $k->pay($a, $paid); }
	else
	{
		$p->start($a, 1, accounts => [$paid]);
		$c->wait_sql($a, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE 'WITH p AS (INSERT INTO payments%'");
	}
	$k->disarm($a, 'switch.drained');
	$k->await_background($switch);
	$k->finish('ok') unless $rule_off;
	$k->pay($b, $paid);
	$session->quit;
};

foreach my $rule (sort keys %control)
{
	$control{$rule}->($k, 0);
	$p->assert_kept("$rule kept") or last;
	$control{$rule}->($k, 1);
	$k->all_rules_on;
	$p->wait_in_sync;
	$p->wait_journals_empty;
	my $wrong = $p->violations;
	isnt($wrong, '', "$rule switched off: the checker finds it");
	note($wrong);
	# the sum anew, then the copies
	$c->sql($p->primary_of($paid), "UPDATE accounts SET balance = (SELECT coalesce(sum(amount), 0) FROM payments WHERE account_id = $paid) WHERE id = $paid");
	$k->heal or last;
}
done_testing();
