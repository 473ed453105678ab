# Bytes from another node that are cut or corrupted are refused, the connection
# is closed, and nothing of them is journaled, adopted or applied.
#
# Real messages between nodes 1 and 2 are taken from the log of node 2 and made
# into ones that node 2 has not had yet; only damaged ones are sent: cut at
# every length, with bits flipped (by a fixed seed), and, for batches, with a
# field that makes no sense under a checksum that is right.  Then bits are
# flipped on the wire itself while clients pay.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::Select;
use IO::Socket::INET;
use PayshardCluster;
use PayshardPayments;
use PayshardProxy;
use PostgreSQL::Test::Utils ();
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => <<'CONF');
payshard.peer_timeout = 5s
payshard.call_timeout = 2s
CONF
my $user = $c->sql(2, 'SELECT current_user');
my $cluster_id = $c->sql(2, 'SELECT cluster_id FROM payshard.node_self');

# -------------------------------------------------------------- bytes and checksums

my @crc_table = map {
	my $crc = $_;
	$crc = $crc & 1 ? ($crc >> 1) ^ 0x82F63B78 : $crc >> 1 foreach 1 .. 8;
	$crc;
} 0 .. 255;

sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xFFFFFFFF;
	$crc = $crc_table[ ($crc ^ $_) & 0xFF ] ^ ($crc >> 8) foreach unpack('C*', $bytes);
	return $crc ^ 0xFFFFFFFF;
}
sub sealed { my ($bytes) = @_; return $bytes . pack('N', crc32c($bytes)); }
sub resealed { my ($bytes) = @_; return sealed(substr($bytes, 0, -4)); }
sub with { my ($bytes, $offset, $new) = @_; substr($bytes, $offset, length $new) = $new; return $bytes; }

# Numbers of our own: the same in every run.
my $random = 20260;
sub random
{
	my ($n) = @_;
	$random = ($random * 1103515245 + 12345) % 2147483648;
	return int($random / 2147483648 * $n);
}

# ------------------------------------------- a client that sees what really comes back

# ask(sql): what node 2 answers over TCP, as [ kind, SQLSTATE or value, closed ]: kind is
# FATAL, ERROR or row; closed: the server has ended the connection.
sub ask
{
	my ($sql, %options) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $c->node(2)->port, Proto => 'tcp')
	  or die "could not connect to node 2: $@";
	my $startup = pack('N', 196608) . "user\0$user\0database\0postgres\0application_name\0damage\0\0";
	my @answer = ('none', '', 0);
	my $n_ready = 0;
	my $buffer = '';

	print $socket pack('N', 4 + length $startup) . $startup;
	$socket->flush;
	while ($n_ready < 2)
	{
		my $got = IO::Select->new($socket)->can_read(20) ? sysread($socket, $buffer, 65536, length $buffer) : die "no answer to $sql";
		if (!$got) { $answer[2] = 1; last; }
		while (length $buffer >= 5 && length $buffer >= 1 + unpack('N', substr($buffer, 1, 4)))
		{
			my ($type, $length) = unpack('aN', $buffer);
			my $body = substr($buffer, 5, $length - 4);
			$buffer = substr($buffer, 1 + $length);
			if ($type eq 'E')
			{
				my %field = map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $body;
				@answer[0, 1] = ($field{V}, $field{C});
			}
			elsif ($type eq 'D')
			{
				@answer[0, 1] = ('row', substr($body, 6));
			}
			elsif ($type eq 'Z' && $n_ready++ == 0)
			{
				my $query = "Q" . pack('N', 5 + length $sql) . "$sql\0";
				$query = substr($query, 0, $options{cut}) if $options{cut};
				syswrite $socket, $query;
				# half a message, and no more: as when the sender dies
				shutdown $socket, 1 if $options{cut};
			}
		}
	}
	return \@answer;
}

# The status in the answer to a hello or a batch, as PS_RECEIVE_...
sub status_of { my ($answer) = @_; return $answer->[0] eq 'row' ? chr(hex(substr($answer->[1], 2, 2))) : "$answer->[0] $answer->[1]"; }
sub call { my ($call, $bytes) = @_; return sprintf("SELECT payshard.$call", "'\\x" . unpack('H*', $bytes) . "'"); }

# The real batch as it would follow seq, under a map of that epoch.
my $batch;
sub fresh_batch
{
	my ($seq, $epoch) = @_;
	my ($fresh, $at, $n) = ($batch, 78, 0);

	while ($at < length($fresh) - 4)
	{
		$n++;
		$fresh = with($fresh, $at + 6, pack('Q>', $seq + $n));
		$fresh = with($fresh, $at + 22, pack('Q>', $seq + $n));
		$at += unpack('N', substr($fresh, $at, 4));
	}
	$fresh = with($fresh, 26, pack('Q>', $epoch));
	return resealed(with($fresh, 54, pack('Q>', $seq) . pack('Q>', $seq + $n)));
}

# What node 2 holds of what others sent it.
sub held
{
	return $c->sql(2, q{
		SELECT 'journal', count(*), md5(string_agg(j::text, ' ' ORDER BY origin, incarnation, last_seq)) FROM payshard.journal j
		UNION ALL SELECT 'aborts', count(*), md5(string_agg(a::text, ' ' ORDER BY origin, seq)) FROM payshard.journal_abort a
		UNION ALL SELECT 'map', epoch, md5(value) FROM payshard.chosen_map
		UNION ALL SELECT 'history', count(*), '' FROM payshard.map_history
		UNION ALL SELECT 'vote', promised, accepted_ballot || ' ' || md5(value) FROM payshard.acceptor
		UNION ALL SELECT 'positions', count(*), string_agg(origin || ' ' || incarnation || ' ' || applied_seq, ', ' ORDER BY origin) FROM payshard.position
		UNION ALL SELECT 'notes', (SELECT count(*) FROM payshard.dirty_key) + (SELECT count(*) FROM payshard.feed), ''
		UNION ALL SELECT 'rows', count(*), md5(string_agg(r, ' ' ORDER BY s, r)) FROM generate_series(0, 7) s, payshard.peer_rows('public.damaged', s) r
		UNION ALL SELECT 'streams', count(*), string_agg(node || ' ' || coalesce(journaled_seq, 0), ', ' ORDER BY node) FROM payshard.replication
		UNION ALL SELECT 'server', extract(epoch FROM pg_postmaster_start_time())::bigint, payshard.incarnation()::text});
}

# ------------------------------------------------------------------- real messages

$c->sql(1, q{CREATE TABLE damaged (k int PRIMARY KEY, v text, n numeric); SELECT payshard.create_distributed_table('damaged', 'k')});
my @keys = split /\n/, $c->sql(1, q{SELECT k FROM generate_series(1, 200) k WHERE EXISTS
	(SELECT FROM payshard.nodes_for('damaged', k) f WHERE f.node = 'n1' AND f.is_primary)});
$c->node(2)->append_conf('postgresql.conf', "log_statement = all\n");
$c->node(2)->reload;
$c->wait_sql(2, 'SHOW log_statement', 10, 'all');
my $log_from = $c->log_size(2);
$c->sql(2, q{SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'payshard sender n1'});
$c->sql(1, "BEGIN; INSERT INTO damaged VALUES ($keys[0], 'one', 1.5), ($keys[1], NULL, 2);
	UPDATE damaged SET v = 'another' WHERE k = $keys[0]; DELETE FROM damaged WHERE k = $keys[1]; INSERT INTO damaged VALUES ($keys[2], 'three', 3); COMMIT");
$c->wait_log(2, qr/peer_journal.*\n.*parameters: \$1 = '\\x50534231\w{132}0000000[1-9]/, 30, $log_from);
my $log = PostgreSQL::Test::Utils::slurp_file($c->node(2)->logfile, $log_from);
my ($hello) = map { pack('H*', $_) } $log =~ /peer_hello\(\$1\)\n.*parameters: \$1 = '\\x(\w+)'/g;
($batch) = grep { unpack('N', substr($_, 14, 4)) == 1 && unpack('N', substr($_, 70, 4)) > 0 } map { pack('H*', $_) } $log =~ /parameters: \$1 = '\\x(50534231\w+)'/g;
ok(defined $hello, 'a hello of node 1 was seen');
ok(defined $batch, 'a batch of node 1 was seen') or BAIL_OUT('no batch in the log');
is(resealed($batch), $batch, 'its checksum is computed alike here');
$c->node(2)->append_conf('postgresql.conf', "log_statement = none\n");
$c->node(2)->reload;
$c->wait_sql(2, "SELECT count(*) = 0 FROM payshard.journal", 30);

is(status_of(ask(call('peer_journal(%s)', $batch))), 'K', 'the same batch, whole: known already');

# One that node 2 has not had: the records with new seqs.
my $seq = unpack('Q>', substr($batch, 62, 8));
my $epoch = $c->sql(2, 'SELECT epoch FROM payshard.chosen_map');
my $fresh = fresh_batch($seq, $epoch);
my $records = substr($fresh, 78, -4);
my $n_shards = unpack('n', substr($records, 30, 2));
my $ops = substr($records, 32 + 10 * $n_shards, unpack('N', $records) - 32 - 10 * $n_shards);
my $map = pack('H*', $c->sql(2, q{SELECT encode(value, 'hex') FROM payshard.chosen_map}));
my $next_map = resealed(with($map, 4, pack('Q>', $epoch + 1)));
my $ballot = $c->sql(2, 'SELECT promised + 64 FROM payshard.acceptor');
my $incarnation = unpack('Q>', substr($batch, 18, 8));

my %message = (
	"peer_journal(%s)" => $fresh,
	"peer_hello(%s)" => resealed(with($hello, 36, pack('Q>', $seq + 1000))),
	"peer_learn(%s)" => $next_map,
	"peer_accept($cluster_id, $ballot, %s)" => $next_map,
	"peer_copy(%s)" => sealed($ops),
	"peer_settle_journal(1, $epoch, $incarnation, %s)" => sealed($records));

# ------------------------------------------------------------------------- damage

my $before = held();

# Sends damaged bytes; returns what did not end as it must.
sub not_refused
{
	my ($call, $what, $bytes) = @_;
	my $answer = ask(call($call, $bytes));
	return () if $answer->[0] eq 'FATAL' && $answer->[1] eq '08P01' && $answer->[2];
	return "$what: @$answer";
}

foreach my $call (sort keys %message)
{
	my $whole = $message{$call};
	my ($name) = $call =~ /^(\w+)/;
	my $length = length $whole;
	# every length up to where all headers end, then some
	my @lengths = grep { $_ < 300 || $_ % 7 == 0 || $_ > $length - 8 } 0 .. $length - 1;
	my @bad = map { not_refused($call, "cut to $_ of $length", substr($whole, 0, $_)) } @lengths;
	is_deeply(\@bad, [], "$name: cut to any of " . scalar(@lengths) . ' lengths: refused and closed');

	@bad = ();
	foreach my $i (1 .. 150)
	{
		my $bytes = $whole;
		my @flips = map { [ random($length), random(8) ] } 0 .. random(3);
		substr($bytes, $_->[0], 1) ^= chr(1 << $_->[1]) foreach @flips;
		next if $bytes eq $whole;
		push @bad, not_refused($call, 'bits ' . join(' ', map { "$_->[0].$_->[1]" } @flips), $bytes);
	}
	is_deeply(\@bad, [], "$name: bits flipped: refused and closed");
	is_deeply([ not_refused($call, 'longer', $whole . 'x'), not_refused($call, 'twice', $whole . $whole), not_refused($call, 'zeros', "\0" x $length) ],
		[], "$name: longer, twice, zeros: refused and closed");
	is(held(), $before, "$name: nothing was journaled, adopted or applied");
}

# A checksum that is right, and a field that is not.
my $damaged = 'FATAL 08P01';
foreach my $case (
	[ 0, 'N', 0x50534232, $damaged, 'another magic' ],
	[ 4, 'C', 2, $damaged, 'another version' ],
	[ 5, 'C', 1, $damaged, 'unknown flags' ],
	[ 6, 'Q>', $cluster_id ^ 1, 'R', 'another cluster' ],
	[ 14, 'N', 0, $damaged, 'no sender' ],
	[ 14, 'N', 64, $damaged, 'a sender that cannot be' ],
	[ 14, 'N', 2, 'R', 'the receiver as sender' ],
	[ 14, 'N', 63, 'R', 'a sender that is no member' ],
	[ 18, 'Q>', $incarnation - 1, 'R', 'an old incarnation' ],
	[ 18, 'Q>', $incarnation + 100, 'R', 'an incarnation that was never issued' ],
	[ 26, 'Q>', $epoch - 1, 'S', 'an old map: learn first' ],
	[ 26, 'Q>', $epoch + 1, 'N', 'a newer map: send it first' ],
	[ 34, 'N', 3, 'R', 'meant for another node' ],
	[ 54, 'Q>', $seq - 1, 'G', 'does not follow what is durable' ],
	[ 54, 'Q>', $seq + 1, $damaged, 'a first record that is not behind it' ],
	[ 62, 'Q>', $seq + 50, $damaged, 'another last seq' ],
	[ 70, 'N', 0, $damaged, 'no records announced' ],
	[ 70, 'N', 1000, $damaged, 'too many records announced' ],
	[ 74, 'N', 0, $damaged, 'another length of records' ],
	[ 74, 'N', 0x7FFFFFFF, $damaged, 'a length beyond all bounds' ],
	[ 78, 'N', 0, $damaged, 'a record without a length' ],
	[ 78, 'N', 0xFFFFFFFF, $damaged, 'a record longer than all' ],
	[ 82, 'a', 'Q', $damaged, 'an unknown kind of record' ],
	[ 108, 'n', 0, $damaged, 'a record without shards' ],
	[ 108, 'n', 65535, $damaged, 'more shards than there can be' ],
	[ 110, 'n', 1024, $damaged, 'a shard that cannot be' ],
	[ 78 + 32 + 10 * $n_shards, 'a', 'Q', $damaged, 'an unknown operation' ],
	[ 78 + 32 + 10 * $n_shards + 5, 'n', 1023, $damaged, 'an operation in a shard that its record does not name' ])
{
	my ($offset, $format, $value, $wanted, $name) = @$case;
	is(status_of(ask(call('peer_journal(%s)', resealed(with($fresh, $offset, pack($format, $value)))))), $wanted, "a batch with $name");
}
my $other = ask(call('peer_hello(%s)', resealed(with($hello, 4, pack('N', 2)))));
is(status_of($other), 'R', 'a hello of another version of payshard');
like(pack('H*', substr($other->[1], 2)), qr/it speaks version 2 of payshard's messages, this node version 1/, '... is told so');
# One that names, besides, a shard between the last of this cluster and the last that can be.
sub with_shard
{
	my ($shard) = @_;
	my $head = with(with(substr($records, 0, 32), 0, pack('N', 10 + unpack('N', $records))), 30, pack('n', $n_shards + 1));
	return $head . substr($records, 32, 10 * $n_shards) . pack('nQ>', $shard, 1) . substr($records, 32 + 10 * $n_shards);
}
is_deeply([ map { not_refused('peer_journal(%s)', "shard $_", sealed(with(substr($fresh, 0, 78), 74, pack('N', length with_shard($_))) . with_shard($_))) } 8, 1023 ],
	[], 'a batch with a shard that the cluster does not have: refused and closed');
is_deeply([ map { not_refused("peer_settle_journal(1, $epoch, $incarnation, %s)", "shard $_", sealed(with_shard($_))) } 8, 1023 ],
	[], 'records of a settlement with a shard that the cluster does not have: refused and closed');
is(held(), $before, 'nothing was journaled or applied');

# Half a message of the protocol itself.
my $query = call('peer_journal(%s)', $fresh);
is_deeply([ grep { !ask($query, cut => $_)->[2] } 1 .. 8, map { 10 + $_ * 40 } 1 .. 10 ], [], 'a message that ends in the middle: closed');
is(held(), $before, '... and nothing was journaled');

my $n_crashes = () = PostgreSQL::Test::Utils::slurp_file($c->node(2)->logfile) =~ /terminated by signal|PANIC|TRAP/g;
is($n_crashes, 0, 'no process of node 2 crashed');
$c->sql(1, "INSERT INTO damaged VALUES ($keys[3], 'after all', 4)");
$c->assert_copies_equal(1);

# ------------------------------------------------------- flipped on the wire itself

my $p = PayshardPayments->new($c);
my $net = PayshardProxy->new($c);
my $log_1 = $c->log_size(1);
$net->damage(1, 2, 3000, 42);
$net->damage(2, 1, 3000, 43);
$p->start($_, 150, accounts => [ $p->accounts_at($_) ]) foreach 1, 2, 1, 2;
$p->finish;
my $n_damaged = $net->n_damaged;
$net->heal;
cmp_ok($n_damaged, '>=', 10, "bits were flipped under payments ($n_damaged)");
like(PostgreSQL::Test::Utils::slurp_file($c->node(2)->logfile) . PostgreSQL::Test::Utils::slurp_file($c->node(1)->logfile),
	qr/FATAL:  a (?:batch of journal entries|hello) is damaged/, 'and found');
$p->assert_kept('bits flipped between sender and receiver');
$n_crashes = 0;
$n_crashes += () = PostgreSQL::Test::Utils::slurp_file($c->node($_)->logfile) =~ /terminated by signal|PANIC|TRAP/g foreach 1, 2;
is($n_crashes, 0, 'no process crashed');

# The control: such a batch, whole, is journaled; the others were refused for their damage only.
$c->stop(1);
$c->wait_until('the whole batch to be taken', 30, sub {
		my $now = $c->sql(2, 'SELECT epoch FROM payshard.chosen_map');
		my $greeting = ask(call('peer_hello(%s)', resealed(with($hello, 20, pack('Q>', $c->sql(2, q{SELECT incarnation FROM payshard.nodes WHERE name = 'n1'})) . pack('Q>', $now)))));
		return (0, "@$greeting") unless status_of($greeting) eq 'K';
		$batch = with($batch, 18, pack('Q>', $c->sql(2, q{SELECT incarnation FROM payshard.nodes WHERE name = 'n1'})));
		my $answer = ask(call('peer_journal(%s)', fresh_batch(hex(substr($greeting->[1], 20, 16)), $now)));
		return (status_of($answer) eq 'K', "@$answer");
	});
is($c->sql(2, 'SELECT count(*) FROM payshard.journal WHERE origin = 1'), '1', 'the same batch without damage is journaled');
done_testing();
