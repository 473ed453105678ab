# As 500, for the rules of a placement that comes back, and for those that need a
# majority when two nodes with data are gone: each rule switched off makes the checker find
# a violation, and the same run with the rule kept does not.
#
# One cluster of three data nodes with three copies and two witnesses; a is a primary, b
# and d have its copies, b is out and comes back.  Where the digests of J4 would find what
# another rule is there to prevent, J4 is off in both runs.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 5, replicas => 3, witness => [ 4, 5 ], shards => 8);
my $c = $k->cluster;
my $p = $k->payments;
my %control;

# Waits until a has the placements of b in its shards in sync.
sub await_in_sync
{
	my ($a, $b) = @_;
	return $c->wait_until("node $a to have node $b in sync", 60, sub {
			my @placements = $p->placements($a);
			my %mine = map { $_->[0] => 1 } grep { $_->[1] == $a && $_->[2] eq 't' } @placements;
			return !grep { $mine{ $_->[0] } && $_->[1] == $b && $_->[3] ne 'in_sync' } @placements;
		});
}

# b dies with a payment of a in its journal that it has not applied; it is committed, and
# other payments follow without b.
sub leave_a_tail
{
	my ($a, $b) = @_;
	my ($account, $other) = $p->accounts_at($a);
	$k->pay_until($a, $account, 'commit.after_local');
	$k->await_journaled($b);
	$k->kill9($b);
	$k->disarm($a, 'commit.after_local');
	$k->finish('ok');
	$k->leave($a, $b, $other);
	return;
}

# Only a is in sync; b is joining and has its copy, its rejoin is paused before the digests; d is down.
sub leave_one_copy
{
	my ($a, $b, $d) = @_;
	my ($account) = $p->accounts_at($a);
	$k->stop($b);
	$k->leave($a, $b, $account);
	$k->arm($a, 'rejoin.before_digest');
	$k->start($b);
	$k->await_paused($a, 'rejoin.before_digest');
	$k->stop($d);
	$k->leave($a, $d, $account);
	return;
}

# a's sender to b stands still.
sub hold_sender
{
	my ($a, $b) = @_;
	$k->arm($a, "sender.before_send.n$b");
	$k->await_paused($a, "sender.before_send.n$b");
	return;
}

# J1: changes while b is out are not noted.
$control{J1} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($a, 'J4', $rule_off ? 'J1' : ());
	$k->stop($b);
	$k->leave($a, $b, $account);
	$k->start($b);
	$p->wait_in_sync;
};

# J4: digests are not looked at.  What differs: changes that are not noted.
$control{J4} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($a, 'J1', $rule_off ? 'J4' : ());
	$k->stop($b);
	$k->leave($a, $b, $account);
	$k->start($b);
	$p->wait_in_sync;
};

# J2: the keys in b's own tail are not dirty.
$control{J2} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b) = $k->cast;
	$k->rule_off($a, 'J4');
	leave_a_tail($a, $b);
	$k->start($b, $rule_off ? 'J2' : ());
	$p->wait_in_sync;
};

# J2, the end: b discards its tail before the copy is complete; the primary is lost then.
$control{'J2.end'} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	$k->rule_off($d, 'J4');
	leave_a_tail($a, $b);
	$c->wait_sql($d, 'SELECT count(*) = 0 FROM payshard.journal');	# applied before b left
	$k->arm($a, 'rejoin.before_copy');
	$k->start($b, $rule_off ? 'J2.end' : ());
	$k->await_paused($a, 'rejoin.before_copy');
	$k->kill9($a);
	$k->replace($a, $d);
};

# J3: the gate is not shut, what is enqueued is not waited for: a payment is neither in
# the copy nor in b's journal.
$control{J3} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($a, 'J4', $rule_off ? 'J3' : ());
	$k->stop($b);
	$k->leave($a, $b, $account);
	$k->arm($a, 'rejoin.before_copy');
	$k->pay_until($a, $account, 'commit.after_acks');
	$k->start($b);
	if ($rule_off) { $k->await_paused($a, 'rejoin.before_copy'); }
	else { $c->wait_sql($a, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'payshard rejoin n$b'"); }
	$k->disarm($a, 'commit.after_acks');
	$k->finish('ok');
	$k->await_paused($a, 'rejoin.before_copy');
	$k->disarm($a, 'rejoin.before_copy');
	$p->wait_in_sync;
};

# J3, the joining set: the next primary goes on with a's join of b, and has a payment of a that
# never reached b.
$control{'J3.joining'} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->stop($b);
	$k->leave($a, $b, $account);
	$k->arm($a, 'rejoin.before_digest');
	$k->start($b);
	$k->await_paused($a, 'rejoin.before_digest');
	hold_sender($a, $b);
	$k->die_committed($a, $account);
	$k->rule_off($d, 'J3.joining') if $rule_off;
	$k->replace($a, $d);
};

# J4, the last step: b gets in sync before it has journaled all that is enqueued for it.
$control{'J4.journaled'} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($a, 'J4', $rule_off ? 'J4.journaled' : ());
	leave_one_copy($a, $b, $d);
	hold_sender($a, $b);
	$k->pay($a, $account);
	$k->disarm($a, 'rejoin.before_digest');
	$k->disarm($a, "sender.before_send.n$b") unless $rule_off;
	await_in_sync($a, $b);
	$k->kill9($a);
	$k->replace($a, $b);
};

# W8: the gate opens before the outcome of the map change is known that makes b in sync.
$control{W8} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($a, 'W8') if $rule_off;
	leave_one_copy($a, $b, $d);
	$k->arm($a, 'rejoin.before_in_sync');
	$k->disarm($a, 'rejoin.before_digest');
	$k->await_paused($a, 'rejoin.before_in_sync');
	hold_sender($a, $b);
	if ($rule_off) { $k->pay($a, $account); }
	else
	{
		$p->start($a, 1, accounts => [$account]);
		$c->wait_sql($a, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'");
	}
	$k->disarm($a, 'rejoin.before_in_sync');
	await_in_sync($a, $b);
	$k->kill9($a);
	$k->finish('unknown') unless $rule_off;
	$k->replace($a, $b);
};

# F4, the last clause: d, the last in-sync member of a's shards, is down, and is skipped.
$control{'F4.last'} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->put_out($a, $b, $account);
	$k->die_committed($a, $account);
	$k->kill9($d);
	$k->rule_off($b, 'F4.last') if $rule_off;
	my $from = $c->log_size($b);
	my $failover = $k->background($b, "SELECT payshard.failover('n$a')");
	if ($rule_off) { $k->await_background($failover); }
	else { $c->wait_log($b, "settling node \"n$a\": node \"n$d\"", 60, $from); }
	$k->start($d);
	$k->await_background($failover) unless $rule_off;
	$k->start($a);
	$p->wait_in_sync;
};

foreach my $rule (grep { !$ENV{PAYSHARD_CONTROL} || /^($ENV{PAYSHARD_CONTROL})$/ }
	qw(J1 J2 J2.end J3 J3.joining J4 J4.journaled W8 F4.last))
{
	$k->run($rule, $control{$rule});
}
done_testing();
