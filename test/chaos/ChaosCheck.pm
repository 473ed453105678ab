# ChaosCheck.pm
#		Does what is on the nodes agree with what the clients were told?
#
#	my $check = ChaosCheck->new($cluster, $workload);
#	$check->await_sync(120);			# seconds it took
#	$check->round;						# after a quiet moment; adds to {lost}, {doubled}, {diverged}, {other}
#	$check->{said}						# what was found, as lines
#
# lost		acknowledged and not there (or read and not found)
# doubled	there twice, told aborted and there, or two winners of a key
# diverged	copies or sums that differ, by the clients' logs, by digests of payshard and by digests of our own
# other		leftovers in a journal or prepared, two primaries in one term, a divergence that payshard itself found
#			and mended, nodes that do not come back
#
# Operations of the round are looked at one by one; of what was settled in earlier rounds there is a
# count and a sum for each account and shard, which every copy must still have.
package ChaosCheck;

use strict;
use warnings;
use Carp;
use PayshardCluster;
use Time::HiRes qw(time usleep);

my $leftover_s = 60;			# the goal is 10 (ChaosReport says how long it took); a starved machine is no violation
my $lines_of_a_round = 40;
my @tables = qw(accounts payments keys blobs);

sub new
{
	my ($class, $cluster, $workload) = @_;
	return bless {
		cluster => $cluster, workload => $workload, lost => 0, doubled => 0, diverged => 0, other => 0, said => [],
		old => {}, old_keys => {}, blob => {}, primary => {} }, $class;
}

sub found
{
	my ($self, $what, $text) = @_;
	$self->{$what}++;
	push @{ $self->{said} }, "$what: $text";
	return;
}

sub is_clean
{
	my ($self) = @_;
	return !grep { $self->{$_} } qw(lost doubled diverged other);
}

# ------------------------------------------------------------------- waiting

# placements as node i has them: [shard, node, is_primary, state]; none if it does not answer
sub placements
{
	my ($self, $i) = @_;
	my $n = $self->{cluster}{shards} - 1;
	my ($status, $out) = $self->{cluster}->try_sql($i,
		"SELECT s, substr(n.node, 2), n.is_primary, n.state FROM generate_series(0, $n) s, payshard.nodes_for(s) n",
		timeout => 20);
	return () if $status != 0;
	return map { [ split /\|/ ] } split /\n/, $out;
}

# Every node sees every placement in sync and every shard open; seconds it took, or undef with what is missing in {said}.
sub await_sync
{
	my ($self, $seconds) = @_;
	my $c = $self->{cluster};
	my $begun = time();

	foreach my $i (1 .. $c->{nodes})
	{
		eval {
			$c->wait_until("node $i to see all in sync", $begun + $seconds - time(), sub {
					my ($status, $out, $err) = $c->try_sql($i,
						"SELECT string_agg(DISTINCT state, ',') FROM payshard.placements UNION ALL "
						  . "SELECT string_agg(DISTINCT state, ',') FROM payshard.shards UNION ALL "
						  . 'SELECT payshard.incarnation()::text', timeout => 20);
					return 1 if $status == 0 && $out =~ /^in_sync\nopen\n[1-9]\d*$/;
					usleep(200_000);
					return (0, $out . $err);
				});
			1;
		} or do
		{
			$self->found('other', $@);
			return;
		};
	}
	return time() - $begun;
}

# Nothing is prepared, undecided or unapplied soon after the clients stand still; notes the seconds it took.
sub await_no_leftovers
{
	my ($self) = @_;
	my $c = $self->{cluster};
	my $begun = time();

	foreach my $i (1 .. $c->{nodes})
	{
		eval {
			$c->wait_until("node $i to have no leftovers", $leftover_s, sub {
					my ($status, $out, $err) = $c->try_sql($i,
						"SELECT 'prepared', gid FROM pg_prepared_xacts UNION ALL "
						  . "SELECT 'entry', concat_ws(' ', origin, incarnation, first_seq, last_seq) FROM payshard.journal UNION ALL "
						  . "SELECT 'abort', concat_ws(' ', origin, incarnation, seq) FROM payshard.journal_abort UNION ALL "
						  . "SELECT 'in doubt', concat_ws(' ', origin, incarnation, seq) FROM payshard.in_doubt");
					return ($status == 0 && $out eq '', $out . $err);
				});
			1;
		} or $self->found('other', $@);
	}
	push @{ $self->{leftover_s} }, time() - $begun;
	return;
}

# ------------------------------------------------------------------- reading

# What node i itself has of these shards (a SELECT would be routed to the primary).
sub _read_node
{
	my ($self, $i, @shards) = @_;
	my $list = join ',', @shards;
	my $round = $self->{workload}{round};
	my %found = (payment => {}, old => {}, key => {}, old_keys => {}, balance => {}, sum => {}, blob => {}, digest => {});
	my $f = sub { my ($n, $type) = @_; return "split_part(rtrim(l, E'\\n'), E'\\t', $n)" . ($type ? "::$type" : ''); };
	my $rows = sub { return "unnest('{$list}'::int[]) s, payshard.peer_rows('public.$_[0]', s) l"; };
	my $own = join ' UNION ALL ', map {
		"SELECT s, '$_' AS t, md5(coalesce(string_agg(l, E'\\n' ORDER BY l COLLATE \"C\"), '')) AS h FROM unnest('{$list}'::int[]) s "
		  . "LEFT JOIN LATERAL payshard.peer_rows('public.$_', s) l ON true GROUP BY s" } @tables;

	my $out = $self->{cluster}->sql($i, <<"SQL");
WITH p AS MATERIALIZED (SELECT ${\$f->(1, 'bigint')} AS account, ${\$f->(2, 'bigint')} AS id, ${\$f->(3, 'int')} AS round,
		${\$f->(4, 'bigint')} AS amount FROM ${\$rows->('payments')})
	SELECT 'p', id, account, amount FROM p WHERE round = $round
	UNION ALL SELECT 'o', account, count(*), sum(id) FROM p WHERE round <> $round GROUP BY account
	UNION ALL SELECT 's', account, sum(amount), 0 FROM p GROUP BY account
	UNION ALL SELECT 'a', ${\$f->(1, 'bigint')}, ${\$f->(2, 'bigint')}, 0 FROM ${\$rows->('accounts')};
WITH k AS MATERIALIZED (SELECT s, ${\$f->(1, 'bigint')} AS key, ${\$f->(2, 'bigint')} AS owner, ${\$f->(3, 'int')} AS round
		FROM ${\$rows->('keys')})
	SELECT 'k', key, owner, 0 FROM k WHERE round = $round
	UNION ALL SELECT 'l', s, count(*), sum(owner) FROM k WHERE round <> $round GROUP BY s;
SELECT 'g', ${\$f->(2)}, ${\$f->(3)}, ${\$f->(5)} = md5(${\$f->(4)}) FROM ${\$rows->('blobs')};
SELECT 'd', s, string_agg(t || ' ' || h, ' ' ORDER BY t), 0 FROM ($own) x GROUP BY s;
SELECT 'e', shard, digest, 0 FROM payshard.peer_digest('{$list}');
SQL
	foreach my $line (split /\n/, $out)
	{
		my ($what, $key, $a, $b) = split /\|/, $line;
		if ($what eq 'p') { push @{ $found{payment}{$key} }, [ $a, $b ]; }
		elsif ($what eq 'o') { $found{old}{$key} = "$a $b"; }
		elsif ($what eq 's') { $found{sum}{$key} = $a; }
		elsif ($what eq 'a') { $found{balance}{$key} = $a; }
		elsif ($what eq 'k') { push @{ $found{key}{$key} }, $a; }
		elsif ($what eq 'l') { $found{old_keys}{$key} = "$a $b"; }
		elsif ($what eq 'g') { $found{blob}{$key} = [ $a, $b ]; }
		elsif ($what eq 'd') { $found{own}{$key} = $a; }
		else { $found{digest}{$key} = $a; }
	}
	return \%found;
}

# ------------------------------------------------------------------- judging

sub _check_payments
{
	my ($self) = @_;
	my $w = $self->{workload};
	my %known;

	foreach my $id (sort { $a <=> $b } keys %{ $w->{ops} })
	{
		my $op = $w->{ops}{$id};
		next if $op->{kind} eq 'race' || $op->{kind} eq 'big';
		my @nodes = @{ $self->{nodes_of}{ $op->{shard} } };
		my @n = map { scalar @{ $self->{at}{$_}{payment}{$id} // [] } } @nodes;
		my $how = "$op->{kind} $id ($op->{outcome} $op->{state}, shard $op->{shard}, begun $op->{begun} at node $op->{node}): "
		  . join(', ', map { "$n[$_] at node $nodes[$_]" } 0 .. $#n);
		my $n = $n[0];

		$known{$id} = 1;
		if (grep { $_ > 1 } @n) { $self->found('doubled', $how); }
		elsif ($op->{outcome} eq 'ack' && grep { $_ == 0 } @n) { $self->found('lost', $how); }
		elsif ($op->{outcome} eq 'aborted' && grep { $_ != 0 } @n) { $self->found('doubled', "told aborted and there: $how"); }
		elsif (grep { $_ != $n } @n) { $self->found('diverged', $how); }
		$op->{is_there} = $n;
	}
	foreach my $i (sort keys %{ $self->{at} })
	{
		my @strange = grep { !$known{$_} } keys %{ $self->{at}{$i}{payment} };
		$self->found('doubled', "nobody sent, or took back: payment $_ at node $i") foreach @strange;
	}
	return;
}

# A key has one row, of the one client that was acknowledged, if any.
sub _check_keys
{
	my ($self) = @_;
	my $w = $self->{workload};
	my %of;

	push @{ $of{ $w->{ops}{$_}{account} } }, $_ foreach grep { $w->{ops}{$_}{kind} eq 'race' } keys %{ $w->{ops} };
	foreach my $key (sort { $a <=> $b } keys %of)
	{
		my @ops = @{ $of{$key} };
		my @winners = grep { $w->{ops}{$_}{outcome} eq 'ack' } @ops;
		my $shard = $w->{ops}{ $ops[0] }{shard};
		my $told = join ', ', map { "$_ $w->{ops}{$_}{outcome} $w->{ops}{$_}{state}" } @ops;
		my $first;

		$self->found('doubled', "key $key, shard $shard, two winners: $told") if @winners > 1;
		foreach my $i (@{ $self->{nodes_of}{$shard} })
		{
			my @owners = @{ $self->{at}{$i}{key}{$key} // [] };
			my $owner = $owners[0] // 0;
			my $how = "key $key, shard $shard, owner $owner at node $i: $told";
			$first //= $owner;
			if (@owners > 1) { $self->found('doubled', $how); }
			elsif (@winners && $owner != $winners[0]) { $self->found('lost', $how); }
			elsif ($owner && !grep { $_ == $owner && $w->{ops}{$_}{outcome} ne 'aborted' } @ops) { $self->found('doubled', $how); }
			elsif ($owner != $first) { $self->found('diverged', $how); }
		}
		if ($first && !$self->{is_broken})
		{
			$self->{new_keys}{$shard}[0]++;
			$self->{new_keys}{$shard}[1] += $first;
		}
	}
	return;
}

# A big row is the last one that was acknowledged, or one after it of which nobody knows.
sub _check_blobs
{
	my ($self) = @_;
	my $w = $self->{workload};
	my %of;

	push @{ $of{ int($_ / 1_000_000_000) } }, $_ foreach grep { $w->{ops}{$_}{kind} eq 'big' } keys %{ $w->{ops} };
	foreach my $client (grep { $_->{kind} eq 'big' } @{ $w->{clients} })
	{
		my $number = $client->{number};
		my %may = map { $_ => 1 } grep { defined } $self->{blob}{$number};
		my $account = 1 + $number % $w->{accounts};
		my $shard = $w->{shard}{$account};
		foreach my $id (sort { $a <=> $b } @{ $of{$number} // [] })
		{
			%may = () if $w->{ops}{$id}{outcome} eq 'ack';
			$may{$id} = 1 if $w->{ops}{$id}{outcome} ne 'aborted';
		}
		my $first;
		foreach my $i (@{ $self->{nodes_of}{$shard} })
		{
			my ($op, $is_whole) = @{ $self->{at}{$i}{blob}{$number} // [ 0, 't' ] };
			my $how = "big row of client $number, shard $shard: $op at node $i, may be " . join(' ', sort keys %may);
			$first //= $op;
			if ($op ne $first) { $self->found('diverged', $how); }
			elsif (!$may{$op} && ($op || defined $self->{blob}{$number})) { $self->found('lost', $how); }
			elsif ($is_whole ne 't') { $self->found('diverged', "$how: not whole"); }
		}
		$self->{blob}{$number} = $first if $first;
	}
	return;
}

sub _check_sums
{
	my ($self) = @_;
	my $w = $self->{workload};

	foreach my $account (1 .. $w->{accounts})
	{
		my $shard = $w->{shard}{$account};
		foreach my $i (@{ $self->{nodes_of}{$shard} })
		{
			my $at = $self->{at}{$i};
			my $balance = $at->{balance}{$account} // 'missing';
			my $sum = $at->{sum}{$account} // 0;
			my $old = $at->{old}{$account} // '0 0';
			my $was = $self->{old}{$account} // '0 0';
			$self->found('diverged', "account $account at node $i: balance $balance, sum of its payments $sum") if $balance ne $sum;
			$self->found('lost', "payments of former rounds of account $account at node $i: (number, sum of ids) $old, were $was")
			  if $old ne $was;
		}
	}
	foreach my $shard (sort { $a <=> $b } keys %{ $self->{nodes_of} })
	{
		foreach my $i (@{ $self->{nodes_of}{$shard} })
		{
			my $old = $self->{at}{$i}{old_keys}{$shard} // '0 0';
			my $was = $self->{old_keys}{$shard} // '0 0';
			$self->found('lost', "keys of former rounds in shard $shard at node $i: (number, sum of owners) $old, were $was") if $old ne $was;
		}
		foreach my $kind (qw(digest own))
		{
			my @nodes = @{ $self->{nodes_of}{$shard} };
			my @digests = map { $self->{at}{$_}{$kind}{$shard} // 'none' } @nodes;
			$self->found('diverged', "$kind digests of shard $shard differ at nodes @nodes: " . join(' / ', @digests))
			  if grep { $_ ne $digests[0] } @digests;
		}
	}
	return;
}

# From now on this is what was settled: as the primary's copy has it.
sub _settle
{
	my ($self) = @_;
	my $w = $self->{workload};
	my (%count, %sum);

	foreach my $id (grep { $w->{ops}{$_}{is_there} } keys %{ $w->{ops} })
	{
		my $account = $w->{ops}{$id}{account};
		$count{$account}++;
		$sum{$account} += $id;
	}
	foreach my $account (keys %count)
	{
		my ($n, $s) = split / /, $self->{old}{$account} // '0 0';
		$self->{old}{$account} = ($n + $count{$account}) . ' ' . ($s + $sum{$account});
	}
	foreach my $shard (keys %{ $self->{new_keys} })
	{
		my ($n, $s) = split / /, $self->{old_keys}{$shard} // '0 0';
		$self->{old_keys}{$shard} = ($n + $self->{new_keys}{$shard}[0]) . ' ' . ($s + $self->{new_keys}{$shard}[1]);
	}
	$self->{new_keys} = {};
	return;
}

# ------------------------------------------------------- what payshard says

# One map for each epoch, the same on all nodes; one primary for each term of a shard.
sub check_maps
{
	my ($self) = @_;
	my $c = $self->{cluster};

	foreach my $i (1 .. $c->{nodes})
	{
		my $since = $self->{epoch}[$i] // 0;
		foreach my $row (split /\n/, $c->sql($i, "SELECT 'm', epoch, md5(value), '' FROM payshard.map_history WHERE epoch >= $since "
				  . "UNION ALL SELECT 't', shard, term::text, primary_node FROM payshard.shards WHERE state = 'open'"))
		{
			my ($what, $key, $value, $node) = split /\|/, $row;
			my $name = $what eq 'm' ? "epoch $key" : "shard $key, term $value";
			my $is = $what eq 'm' ? $value : $node // '';
			$self->{primary}{$name} //= $is;
			$self->found('other', "$name: $is at node $i, $self->{primary}{$name} elsewhere") if $self->{primary}{$name} ne $is;
			$self->{epoch}[$i] = $key if $what eq 'm' && $key > ($self->{epoch}[$i] // 0);
		}
	}
	return;
}

# Rows that payshard itself found to be different, and mended.
sub _check_divergent_rows
{
	my ($self) = @_;
	my $c = $self->{cluster};
	my $n = 0;

	foreach my $i (1 .. $c->{nodes})
	{
		my $rows = $c->sql($i, "SELECT count(*) FROM payshard.divergent_rows");
		next if $rows == ($self->{divergent}[$i] // 0);
		$self->found('other', 'payshard.divergent_rows has rows at node ' . "$i: "
			  . $c->sql($i, "SELECT concat_ws(' ', at, shard, what, left(found_json::text, 200)) FROM payshard.divergent_rows ORDER BY at DESC LIMIT 3"));
		$self->{divergent}[$i] = $rows;
	}
	return;
}

# All checks of a round; clients stand still, everything is in sync.
sub round
{
	my ($self) = @_;
	my $c = $self->{cluster};
	my $w = $self->{workload};
	my (%shards_at, %seen);

	$self->{nodes_of} = {};
	$self->{new_keys} = {};
	$self->await_no_leftovers;
	foreach my $i (1 .. $c->{nodes})
	{
		my @placements = $self->placements($i);
		my $text = join ';', sort map { join ',', @$_ } @placements;
		$seen{$text} = $i;
		next if $i > 1;
		foreach my $row (grep { $_->[3] eq 'in_sync' } @placements)
		{
			push @{ $shards_at{ $row->[1] } }, $row->[0];
			# the primary first
			if ($row->[2] eq 't') { unshift @{ $self->{nodes_of}{ $row->[0] } }, $row->[1]; }
			else { push @{ $self->{nodes_of}{ $row->[0] } }, $row->[1]; }
		}
	}
	$self->found('other', 'nodes see different maps: ' . join(' // ', keys %seen)) if keys %seen > 1;
	$self->{at} = { map { $_ => $self->_read_node($_, @{ $shards_at{$_} }) } keys %shards_at };
	$self->_check_payments;
	$self->_check_keys;
	$self->_check_blobs;
	$self->_check_sums;
	$self->found('lost', "payment $_->[0] was acknowledged and not found by its client at node $_->[1], at $_->[2]") foreach @{ $w->{unread} };
	$self->_settle;
	my ($status, $out, $err) = $c->try_sql(1, 'SELECT v FROM payshard.verify() AS v WHERE v.equal IS NOT TRUE', timeout => 120);
	$self->found('diverged', "payshard.verify(): $out $err") if $status != 0 || $out ne '';
	$self->check_maps;
	$self->_check_divergent_rows;
	$self->{at} = {};
	return;
}

# What was found since the last call, a bounded number of lines.
sub say_found
{
	my ($self) = @_;
	my @said = @{ $self->{said} };
	my $more = @said - $lines_of_a_round;

	$self->{said} = [];
	splice @said, $lines_of_a_round if $more > 0;
	push @said, "... and $more more" if $more > 0;
	return @said;
}

1;
