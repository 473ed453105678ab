# ChaosWorkload.pm
#		Who writes while the nodes are hurt, and what was each of them told?
#
#	my $w = ChaosWorkload->new($cluster, source => 'test/chaos');
#	$w->run(7);					# round 7
#	$w->pause(90);				# all clients stand still, their logs are read
#	$w->{ops}					# id => { kind, round, account, amount, begun, ended, state, outcome, node, shard }
#
# Clients are long-lived processes (client.c), some of each kind at every node, that append what
# they do and hear to logs of their own.  {ops} has the operations of the round only; forget() ends it.
package ChaosWorkload;

use strict;
use warnings;
use Carp;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(time usleep);

# kind => [clients at each node, pause between operations in ms]
my %kinds = (
	pay => [ 1, 25 ], hot => [ 1, 60 ], race => [ 1, 120 ], save => [ 1, 80 ], big => [ 1, 3000 ], retry => [ 1, 60 ]);
my $accounts = 64;
my $post_ms = 120;				# pause of the clients that stay with one shard, at two nodes for each shard
my $answer_ms = 40_000;

sub new
{
	my ($class, $cluster, %options) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless {
		cluster => $cluster, dir => $dir, ops => {}, tail => [], clients => [], accounts => $accounts,
		unread => [], %options }, $class;

	PostgreSQL::Test::Utils::system_or_bail('gcc', '-O2', '-Wall', '-I', include_dir(), '-o', "$dir/chaosclient",
		"$options{source}/client.c", '-lpq');
	$self->_make_tables;
	foreach my $node (1 .. $cluster->{nodes})
	{
		foreach my $kind (sort keys %kinds)
		{
			$self->_start($node, $kind, $accounts, $kinds{$kind}[1]) foreach 1 .. $kinds{$kind}[0];
		}
	}
	# each on an account of its own, where the shard has two: the row lock that the broken session of one has
	# left must not be taken for a shard that stands still
	my %accounts_of;
	push @{ $accounts_of{ $self->{shard}{$_} } }, $_ foreach 1 .. $accounts;
	foreach my $shard (sort { $a <=> $b } keys %accounts_of)
	{
		$self->_start(1 + ($shard + $_) % $cluster->{nodes}, 'post', -($accounts_of{$shard}[ -1 - $_ ] // $accounts_of{$shard}[0]), $post_ms)
		  foreach 0, 1;
	}
	return $self;
}

sub include_dir
{
	my $config = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my $dir = `$config --includedir`);
	return $dir;
}

sub _make_tables
{
	my ($self) = @_;
	my $c = $self->{cluster};

	$c->sql(1, <<'SQL');
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
SELECT payshard.create_distributed_table('accounts', 'id');
CREATE TABLE payments (account_id bigint REFERENCES accounts, id bigint, round int NOT NULL, amount bigint NOT NULL,
	PRIMARY KEY (account_id, id));
SELECT payshard.create_distributed_table('payments', 'account_id');
CREATE TABLE keys (key bigint PRIMARY KEY, owner bigint NOT NULL, round int NOT NULL);
SELECT payshard.create_distributed_table('keys', 'key');
CREATE TABLE blobs (account_id bigint, id int, op bigint NOT NULL, body text NOT NULL, sum text NOT NULL, PRIMARY KEY (account_id, id));
ALTER TABLE blobs ALTER COLUMN body SET STORAGE EXTERNAL;
SELECT payshard.create_distributed_table('blobs', 'account_id');
SQL
	my $shards = $c->sql(1, "SELECT i, payshard.shard_for('accounts', i::bigint) FROM generate_series(1, $accounts) i");
	$self->{shard} = { map { split /\|/ } split /\n/, $shards };
	$c->sql(1, "INSERT INTO accounts VALUES ($_, 0)") foreach 1 .. $accounts;
	return;
}

sub _start
{
	my ($self, $node, $kind, $which, $pause_ms) = @_;
	my $number = @{ $self->{clients} } + 1;
	my $log = "$self->{dir}/client$number-$kind-n$node.log";

	pipe my $read, my $write or croak "pipe: $!";
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<&', $read;
		close $write;
		exec "$self->{dir}/chaosclient", $kind, $number, $which, $pause_ms, $answer_ms, $log,
		  $self->{cluster}->node($node)->connstr('postgres')
		  or POSIX::_exit(127);
	}
	close $read;
	$write->autoflush(1);
	push @{ $self->{clients} }, { number => $number, kind => $kind, node => $node, pid => $pid, order => $write,
		log => $log, offset => 0, rest => '', paused => -1 };
	return;
}

sub _order
{
	my ($self, $order) = @_;
	foreach my $client (@{ $self->{clients} })
	{
		print { $client->{order} } "$order\n" or croak "client $client->{number} is gone";
	}
	return;
}

sub run
{
	my ($self, $round) = @_;
	$self->{round} = $round;
	return $self->_order("run $round");
}

# Reads on in all logs.
sub read_logs
{
	my ($self) = @_;
	foreach my $client (@{ $self->{clients} })
	{
		open my $file, '<', $client->{log} or next;
		seek $file, $client->{offset}, 0;
		local $/ = undef;
		my $text = <$file> // '';
		$client->{offset} += length $text;
		my @lines = split /\n/, $client->{rest} . $text, -1;
		$client->{rest} = pop @lines // '';
		$self->_take($client, $_) foreach @lines;
	}
	return;
}

# One line of a log.  An operation that was unknown once stays so until it is acknowledged.
sub _take
{
	my ($self, $client, $line) = @_;
	my ($what, $id, @rest) = split / /, $line;

	if ($what eq 's')
	{
		my ($kind, $round, $account, $amount, $ms) = @rest;
		$self->{ops}{$id} = { kind => $kind, round => $round, account => $account, amount => $amount, begun => $ms,
			outcome => 'unknown', state => 'none', node => $client->{node}, attempts => 0 };
	}
	elsif ($what eq 'paused') { $client->{paused} = $id; }
	elsif ($what eq 'r') { push @{ $self->{unread} }, [ $id, $client->{node}, $rest[0] ]; }
	else
	{
		my $op = $self->{ops}{$id} // croak "$client->{log}: $line";
		$op->{state} = $what eq 'a' ? '00000' : $rest[0];
		$op->{ended} = $rest[-1];
		$op->{attempts}++;
		$op->{is_doubtful} ||= $what eq 'u';
		$op->{outcome} = $what eq 'a' ? 'ack' : $op->{is_doubtful} ? 'unknown' : 'aborted';
	}
	return;
}

# All clients stand still; dies when one does not within so many seconds.
sub pause
{
	my ($self, $seconds) = @_;

	$self->_order('pause');
	$self->{cluster}->wait_until('all clients to stand still', $seconds, sub {
			$self->read_logs;
			my @moving = grep { $_->{paused} != $self->{round} } @{ $self->{clients} };
			return (!@moving, join "\n", map { "client $_->{number} ($_->{kind}) at node $_->{node}" } @moving);
		});
	# where a key of a race lies is known to the servers only
	my %keys = map { $_->{account} => 1 } grep { $_->{kind} eq 'race' } values %{ $self->{ops} };
	if (%keys)
	{
		my $out = $self->{cluster}->sql($self->{cluster}->any, "SELECT k, payshard.shard_for('keys', k) FROM unnest('{"
			  . join(',', keys %keys) . "}'::bigint[]) k");
		%keys = map { split /\|/ } split /\n/, $out;
	}
	foreach my $op (values %{ $self->{ops} })
	{
		$op->{shard} = $op->{kind} eq 'race' ? $keys{ $op->{account} } : $self->{shard}{ $op->{account} };
	}
	return;
}

sub forget
{
	my ($self) = @_;
	$self->{ops} = {};
	$self->{unread} = [];
	# bounded: what was read is not needed again
	foreach my $client (@{ $self->{clients} })
	{
		next unless $client->{offset} > 50_000_000;
		truncate $client->{log}, 0;
		$client->{offset} = 0;
	}
	return;
}

sub end
{
	my ($self) = @_;
	local $?;
	foreach my $client (@{ $self->{clients} })
	{
		close $client->{order};
		kill 'KILL', $client->{pid} if waitpid($client->{pid}, WNOHANG) == 0;
		waitpid $client->{pid}, 0;
	}
	$self->{clients} = [];
	return;
}

sub DESTROY { $_[0]->end; return; }

1;
