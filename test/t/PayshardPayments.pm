# PayshardPayments.pm
#		Payments by clients that keep their own logs, and the invariants that
#		must hold between these logs and all copies.
#
#	my $p = PayshardPayments->new($cluster, accounts => 64);
#	my $client = $p->start(1, 50);			# 50 payments at node 1, in the background
#	$p->finish;								# all clients are through
#	$p->assert_kept('after the crash');		# one test point
#
# A payment is one statement: a row in payments and the balance of its account.
# What a client heard is "ok", "aborted" (an error that says so) or "unknown"
# (08xxx, connection lost).  Kept means, once all placements are in sync again:
# ok => on every placement once; aborted => nowhere; unknown => either, but on
# all placements the same; balances are the sums; digests are equal; nothing is
# left in a journal; every shard takes payments.
package PayshardPayments;

use strict;
use warnings;
use Carp;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

# Errors after which a client cannot know: unknown outcome, connection lost, server ends.
my $unknown_state = qr/^(?:08|57P01|57P02|57P05)/;

sub new
{
	my ($class, $cluster, %options) = @_;
	my %self = (
		cluster => $cluster, accounts => 64, next_id => 1, clients => [], outcome => {}, account => {},
		seconds => 60, %options);
	my $self = bless \%self, $class;
	my $c = $cluster;

	$self->{dir} = PostgreSQL::Test::Utils::tempdir();
	$c->sql(1, <<'SQL');
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
SELECT payshard.create_distributed_table('accounts', 'id');
CREATE TABLE payments (account_id bigint REFERENCES accounts, id bigint, amount bigint NOT NULL, note text,
	PRIMARY KEY (account_id, id));
SELECT payshard.create_distributed_table('payments', 'account_id');
SQL
	# in the map's words: shard of each account
	my $shards = $c->sql(1, "SELECT i, payshard.shard_for('accounts', i::bigint) FROM generate_series(1, $self->{accounts}) i");
	$self->{shard} = { map { split /\|/ } split /\n/, $shards };
	foreach my $table (qw(accounts payments))
	{
		my $names = $c->sql(1, "SELECT substring(inhrelid::regclass::text FROM '_([0-9]+)\$'), inhrelid::regclass "
			  . "FROM pg_inherits WHERE inhparent = '$table'::regclass");
		$self->{partition}{$table} = { map { split /\|/ } split /\n/, $names };
	}
	foreach my $node ($self->data_nodes)
	{
		my @mine = $self->accounts_at($node);
		$c->sql($node, 'INSERT INTO accounts VALUES ' . join(', ', map { "($_, 0)" } @mine)) if @mine;
	}
	return $self;
}

# Numbers of the nodes that hold placements, from the map as a running node has it.
sub data_nodes
{
	my ($self) = @_;
	my %seen = map { $_->[1] => 1 } $self->placements;
	return sort keys %seen;
}

sub _any
{
	my ($self) = @_;
	my $c = $self->{cluster};
	return (grep { $c->is_running($_) } 1 .. $c->{nodes})[0] // croak 'no node is running';
}

# placements(i): [shard, node, is_primary, state], as node i has it
sub placements
{
	my ($self, $i) = @_;
	my $n = $self->{cluster}{shards} - 1;
	my $rows = $self->{cluster}->sql($i // $self->_any,
		"SELECT s, substr(n.node, 2), n.is_primary, n.state FROM generate_series(0, $n) s, payshard.nodes_for(s) n");
	return map { [ split /\|/ ] } split /\n/, $rows;
}

# Accounts whose primary is a node.
sub accounts_at
{
	my ($self, $node, $as_seen_by) = @_;
	my %primary = map { $_->[0] => $_->[1] } grep { $_->[2] eq 't' } $self->placements($as_seen_by // $self->_any);
	return grep { $primary{ $self->{shard}{$_} } == $node } 1 .. $self->{accounts};
}

# primary_of(account): node number
sub primary_of
{
	my ($self, $account) = @_;
	my ($row) = grep { $_->[0] == $self->{shard}{$account} && $_->[2] eq 't' } $self->placements;
	return $row->[1];
}

# Accounts at a primary whose copy is on one certain node.
sub accounts_between
{
	my ($self, $primary, $secondary) = @_;
	my (%primary, %holds);
	foreach my $row ($self->placements)
	{
		$primary{ $row->[0] } = $row->[1] if $row->[2] eq 't';
		$holds{ $row->[0] }{ $row->[1] } = 1;
	}
	return grep { my $s = $self->{shard}{$_}; $primary{$s} == $primary && $holds{$s}{$secondary} } 1 .. $self->{accounts};
}

# The statement of a new payment: (id, SQL).
sub payment
{
	my ($self, $account) = @_;
	my $id = $self->{next_id}++;
	my $amount = 1 + $id % 97;

	$self->{account}{$id} = $account;
	$self->{outcome}{$id} = 'unknown';
	return ($id, "WITH p AS (INSERT INTO payments VALUES ($account, $id, $amount, repeat('x', " . ($id % 200)
		  . ')) RETURNING account_id, amount) UPDATE accounts a SET balance = balance + p.amount FROM p '
		  . "WHERE a.id = p.account_id AND a.id = $account");
}

# start(node, n, accounts => [...]): a client with n payments, in the background.
sub start
{
	my ($self, $node, $n, %options) = @_;
	my $c = $self->{cluster};
	my @accounts = @{ $options{accounts} // [ $self->accounts_at($node) ] };
	my $name = "$self->{dir}/client" . scalar(@{ $self->{clients} }) . '-' . $self->{next_id};
	my $script = "\\set VERBOSITY sqlstate\n\\set ON_ERROR_STOP off\n" . ($options{before} // '');

	return undef unless @accounts;
	foreach my $k (0 .. $n - 1)
	{
		my ($id, $sql) = $self->payment($accounts[ $k % @accounts ]);
		$script .= "\\echo try $id\n$sql;\n\\if :ERROR\n\\echo fail $id :SQLSTATE\n\\else\n\\echo ok $id\n\\endif\n";
	}
	open my $file, '>', "$name.sql" or die "$name.sql: $!";
	print $file $script;
	close $file;
	my @command = ('psql', '-XAtq', '-d', $c->node($node)->connstr('postgres'), '-f', "$name.sql");
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$name.out";
		open STDERR, '>', "$name.err";
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	my $client = { pid => $pid, name => $name, node => $node, application => $options{name} };
	push @{ $self->{clients} }, $client;
	return $client;
}

sub is_through
{
	my ($client) = @_;
	$client->{done} ||= waitpid($client->{pid}, WNOHANG) != 0;
	return $client->{done};
}

# Reads what a client has heard.
sub _take_log
{
	my ($self, $client) = @_;
	foreach my $line (split /\n/, PostgreSQL::Test::Utils::slurp_file("$client->{name}.out"))
	{
		$self->note_outcome($1, $2, $3) if $line =~ /^(ok|fail) (\d+)(?: (\w+))?$/;
	}
	return;
}

# note_outcome("ok" | "fail", id, SQLSTATE)
sub note_outcome
{
	my ($self, $what, $id, $state) = @_;
	$self->{outcome}{$id} = $what eq 'ok' ? 'ok' : ($state // '08006') =~ $unknown_state ? 'unknown' : 'aborted';
	$self->{state}{$id} = $state if $what ne 'ok';
	return;
}

# finish(seconds): waits for all clients and reads their logs.  A client that hangs is a
# failure of the test, not of the client.
sub finish
{
	my ($self, $seconds) = @_;
	my @clients = @{ $self->{clients} };

	eval {
		$self->{cluster}->wait_until('all clients to be through', $seconds // $self->{seconds}, sub {
				my @left = grep { !is_through($_) } @clients;
				return (!@left, join("\n", map { "$_->{name} at node $_->{node}" } @left));
			});
		1;
	} or do
	{
		my $error = $@;
		kill 'TERM', map { $_->{pid} } grep { !is_through($_) } @clients;
		die $error;
	};
	$self->_take_log($_) foreach @clients;
	$self->{clients} = [];
	return;
}

# pay(node, account): one payment in the foreground; its outcome.
sub pay
{
	my ($self, $node, $account, %options) = @_;
	my ($id, $sql) = $self->payment($account);
	my ($status, $out, $err) = $self->{cluster}->try_sql($node, ($options{before} // '') . $sql, timeout => $options{timeout} // 60);

	$self->{last_error} = $err;
	if ($status == 0) { $self->note_outcome('ok', $id); }
	else { $self->note_outcome('fail', $id, $err =~ /(?:ERROR|FATAL):\s+(\w{5}):/ ? $1 : undef); }
	return wantarray ? ($self->{outcome}{$id}, $self->{state}{$id} // '', $id) : $self->{outcome}{$id};
}

# How many payments had each outcome, as "ok 12, unknown 1".
sub tally
{
	my ($self) = @_;
	my %n;
	$n{$_}++ foreach values %{ $self->{outcome} };
	return join(', ', map { "$_ $n{$_}" } sort keys %n);
}

# ---------------------------------------------------------------- checking

# Waits until every placement is in sync in the eyes of every running node.
sub wait_in_sync
{
	my ($self, $seconds) = @_;
	my $c = $self->{cluster};

	foreach my $i (grep { $c->is_running($_) } 1 .. $c->{nodes})
	{
		$c->wait_until("node $i to see all placements in sync", $seconds // $self->{seconds}, sub {
				my @placements = eval { $self->placements($i) };
				my @not = grep { $_->[3] ne 'in_sync' } @placements;
				return (@placements && !@not, $@ . join("\n", map { join ' ', @$_ } @not));
			});
	}
	return;
}

# Every shard takes a payment at its primary; retried, since it may still be opening.
sub wait_open
{
	my ($self, $seconds) = @_;
	my $c = $self->{cluster};
	my (%account_of, %primary);

	$account_of{ $self->{shard}{$_} } //= $_ foreach 1 .. $self->{accounts};
	$primary{ $_->[0] } = $_->[1] foreach grep { $_->[2] eq 't' } $self->placements;
	my %left = map { $_ => 1 } keys %account_of;
	$c->wait_until('every shard to take payments', $seconds // $self->{seconds}, sub {
			my ($said, %todo) = ('');
			push @{ $todo{ $primary{$_} } }, $_ foreach keys %left;
			foreach my $node (keys %todo)
			{
				my @shards = @{ $todo{$node} };
				$self->start($node, scalar(@shards), accounts => [ map { $account_of{$_} } @shards ]);
				my $first = $self->{next_id} - @shards;
				$self->finish(30);
				foreach my $k (0 .. $#shards)
				{
					my $id = $first + $k;
					if ($self->{outcome}{$id} eq 'ok') { delete $left{ $shards[$k] }; }
					else { $said .= "shard $shards[$k] at node $node: " . ($self->{state}{$id} // 'no answer') . "\n"; }
				}
			}
			return (!%left, $said);
		});
	return;
}

# Waits until no node has anything left in its journal.
sub wait_journals_empty
{
	my ($self, $seconds) = @_;
	my $c = $self->{cluster};

	foreach my $i (grep { $c->is_running($_) } 1 .. $c->{nodes})
	{
		$c->wait_until("the journal of node $i to be empty", $seconds // 20, sub {
				my ($status, $out, $err) = $c->try_sql($i,
					"SELECT 'entry', origin, incarnation, first_seq, last_seq FROM payshard.journal "
					  . "UNION ALL SELECT 'abort', origin, incarnation, seq, 0 FROM payshard.journal_abort");
				return ($status == 0 && $out eq '', $out . $err);
			});
	}
	return;
}

# What a node's placements hold: {payments}{id} => count, {wrong} => accounts whose
# balance is not the sum.
sub _read_node
{
	my ($self, $i, @shards) = @_;
	my $c = $self->{cluster};
	my %found = (payments => {}, digest => {}, wrong => '');

	return \%found unless @shards;
	my $list = join ',', @shards;
	# the copies of this node itself: a SELECT would be routed to the primary
	my $payments = "SELECT split_part(l, E'\\t', 1)::bigint AS account_id, split_part(l, E'\\t', 2)::bigint AS id, "
	  . "split_part(l, E'\\t', 3)::bigint AS amount FROM unnest('{$list}'::int[]) s, payshard.peer_rows('public.payments', s) l";
	my $accounts = "SELECT split_part(l, E'\\t', 1)::bigint AS id, split_part(l, E'\\t', 2)::bigint AS balance "
	  . "FROM unnest('{$list}'::int[]) s, payshard.peer_rows('public.accounts', s) l";
	my $out = $c->sql($i, <<"SQL");
SELECT 'p', id, count(*) FROM ($payments) p GROUP BY id;
SELECT 'd', shard, digest FROM payshard.peer_digest('{$list}');
SELECT 'w', a.id, a.balance || ' is not ' || coalesce(sum(p.amount), 0) FROM ($accounts) a LEFT JOIN ($payments) p ON p.account_id = a.id
	GROUP BY a.id, a.balance HAVING a.balance <> coalesce(sum(p.amount), 0);
SQL
	foreach my $line (split /\n/, $out)
	{
		my ($kind, $key, $value) = split /\|/, $line, 3;
		if ($kind eq 'p') { $found{payments}{$key} = $value; }
		elsif ($kind eq 'd') { $found{digest}{$key} = $value; }
		else { $found{wrong} .= "account $key at node $i: $value\n"; }
	}
	return \%found;
}

# copy(table, account): a relation of the rows in an account's shard as the node asked has
# them itself, for use in FROM; each is one line of text.
sub copy
{
	my ($self, $table, $account) = @_;
	return "payshard.peer_rows('public.$table', $self->{shard}{$account})";
}

# The invariants, as text: what is wrong, '' = nothing.  All nodes must run and be in sync.
sub violations
{
	my ($self) = @_;
	my $c = $self->{cluster};
	my (%shards_at, %nodes_of, %at);
	my $wrong = '';

	foreach my $row ($self->placements)
	{
		next unless $row->[3] eq 'in_sync';
		push @{ $shards_at{ $row->[1] } }, $row->[0];
		push @{ $nodes_of{ $row->[0] } }, $row->[1];
	}
	$at{$_} = $self->_read_node($_, @{ $shards_at{$_} }) foreach keys %shards_at;
	$wrong .= $at{$_}{wrong} foreach sort keys %at;
	foreach my $id (sort { $a <=> $b } keys %{ $self->{outcome} })
	{
		my $shard = $self->{shard}{ $self->{account}{$id} };
		my $outcome = $self->{outcome}{$id};
		my @n = map { $at{$_}{payments}{$id} // 0 } @{ $nodes_of{$shard} };
		my $how = "payment $id ($outcome " . ($self->{state}{$id} // '') . ", shard $shard): "
		  . join(', ', map { "$n[$_] at node $nodes_of{$shard}[$_]" } 0 .. $#n) . "\n";

		$wrong .= "acknowledged but not everywhere: $how" if $outcome eq 'ok' && grep { $_ != 1 } @n;
		$wrong .= "told aborted but there: $how" if $outcome eq 'aborted' && grep { $_ != 0 } @n;
		$wrong .= "copies disagree: $how" if $outcome eq 'unknown' && grep { $_ != $n[0] || $_ > 1 } @n;
	}
	foreach my $shard (sort { $a <=> $b } keys %nodes_of)
	{
		my @digests = map { $at{$_}{digest}{$shard} } @{ $nodes_of{$shard} };
		$wrong .= "digests of shard $shard differ: @digests at nodes @{$nodes_of{$shard}}\n"
		  if grep { $_ ne $digests[0] } @digests;
	}
	return $wrong;
}

# assert_kept(name): one test point, after everything is in sync and open again.
sub assert_kept
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $wrong = '';

	eval {
		$self->finish if @{ $self->{clients} };
		$self->wait_in_sync;
		$self->wait_open;
		$self->wait_journals_empty;
		$wrong = $self->violations;
		1;
	} or $wrong = $@;
	return ok($wrong eq '', "$name: every payment is as its client was told (" . $self->tally . ')') || diag($wrong);
}

# Clients of a test that died must not outlive it.
sub DESTROY
{
	my ($self) = @_;
	local $?;
	kill 'KILL', map { $_->{pid} } grep { !is_through($_) } @{ $self->{clients} };
	return;
}

1;
