# The time of day of a primary is set back, and ahead, by three hours while a commit waits: it neither waits
# for three hours longer, nor is it given up at once.  Nor are its events lost to the other node.
#
# Method: test/chaos/preload.c moves the clock of the server. The secondary stands still, and nobody takes it out.
use strict;
use warnings;
use Cwd ();
use File::Basename ();
use PayshardCluster;
use PayshardPayments;
use Test::More;

# Servers whose time of day can be set: tell(i, us).
package ClockCluster
{
	our @ISA = ('PayshardCluster');
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $source = Cwd::abs_path(File::Basename::dirname(__FILE__) . '/../chaos/preload.c');

	PostgreSQL::Test::Utils::system_or_bail('gcc', '-O2', '-Wall', '-shared', '-fPIC', '-o', "$dir/preload.so", $source, '-ldl');

	sub start
	{
		my ($self, $i, @rest) = @_;
		$self->tell($i, 0);
		local $ENV{LD_PRELOAD} = "$dir/preload.so";
		local $ENV{CHAOS_CONTROL} = "$dir/control$i";
		return $self->SUPER::start($i, @rest);
	}

	# In place: the servers have the file mapped.
	sub tell
	{
		my ($self, $i, $us) = @_;
		my $name = "$dir/control$i";
		open my $file, (-e $name ? '+<' : '+>'), $name or die "$name: $!";
		syswrite $file, pack('q4', 0, 0, $us, 0) or die "$name: $!";
		close $file;
		return;
	}
}

my $hours_us = 3 * 3600 * 1_000_000;
my $c = ClockCluster->new(nodes => 2, replicas => 2, shards => 8, conf => <<'CONF');
payshard.peer_timeout = 10min
payshard.call_timeout = 2min
payshard.commit_timeout = 2min
payshard.abort_timeout = 5s
CONF
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_at(1);
my $waiting = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'";

is($p->pay(1, $account), 'ok', 'a payment');

# ahead: it still waits for the secondary
$c->pause(2);
$p->start(1, 1, accounts => [$account]);
$c->wait_sql(1, $waiting);
$c->tell(1, $hours_us);
$c->wait_sql(1, "SELECT clock_timestamp() - backend_start > '1 hour' FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'");
# time in which it would give up
$c->sql(1, 'SELECT pg_sleep(1)');
is($c->sql(1, $waiting), 't', 'three hours ahead: the commit waits on');
$c->resume(2);
$p->finish(60);
is($p->tally, 'ok 2', 'and succeeds');

$c->tell(1, 0);

# back: it does not wait for three hours more
$c->sql(1, q{ALTER SYSTEM SET payshard.commit_timeout = '4s'});
$c->sql(1, 'SELECT pg_reload_conf()');
$c->wait_sql(1, "SELECT setting = '4000' FROM pg_settings WHERE name = 'payshard.commit_timeout'");
$c->pause(2);
$p->start(1, 1, accounts => [$account]);
$c->wait_sql(1, $waiting);
$c->tell(1, -$hours_us);
ok(eval { $p->finish(60); 1 }, 'three hours back: the commit ends') or diag($@);
$c->tell(1, 0);
$c->resume(2);
$p->assert_kept('afterwards');

# what it notes after its clock has been ahead is heard of, too
$c->tell(1, $hours_us);
$c->sql(1, "SELECT payshard.peer_note('drill_ended', 2, 'ahead')");
$c->wait_sql(2, "SELECT count(*) = 1 FROM payshard.event_log WHERE detail = 'ahead'");
$c->tell(1, 0);
$c->sql(1, "SELECT payshard.peer_note('drill_ended', 2, 'as before')");
ok($c->wait_sql(2, "SELECT count(*) = 1 FROM payshard.event_log WHERE detail = 'as before'"), 'the other node hears of events after a jump');

# nor do the views fail where a clock was set back while a node watched
$c->sql(2, "INSERT INTO payshard.watch_span VALUES (1, now() - interval '1 min', now() - interval '3 hours')");
foreach my $view (qw(stops incidents availability recovery_stats))
{
	my ($status, $out, $err) = $c->try_sql(2, "SELECT count(*) FROM payshard.$view");
	is($status, 0, "payshard.$view after a step back") || diag($err);
}
done_testing();
