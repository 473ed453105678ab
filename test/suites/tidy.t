#!/usr/bin/perl
# The house rules: test/tidy says which.
use strict;
use warnings;
exec $^X, 'test/tidy' or die "could not run test/tidy: $!";
