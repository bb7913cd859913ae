package monitoring

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// Latencies are counted in fixed buckets: 16 per power of two of microseconds, so a quantile is at most 6.25 % off,
// from 1 us to 2^27 us (134 s). The buckets never move, so histograms of any two places and times can be added.
const (
	subBits        = 4
	maxExponent    = 27
	latencyBuckets = (maxExponent-subBits+1)<<subBits + 1 // the last one holds everything longer
)

// Latency is a histogram of durations. The zero value is empty. It is not safe for concurrent use.
type Latency struct {
	count  uint64
	sum    time.Duration
	counts []uint32 // nil or latencyBuckets long
}

// bucketOf: below 16 us one bucket each, then the exponent and the 4 bits below the leading one.
func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 1<<subBits {
		return int(us)
	}
	e := bits.Len64(us) - 1
	if e >= maxExponent {
		return latencyBuckets - 1
	}
	return (e-subBits+1)<<subBits + int(us>>(e-subBits))&(1<<subBits-1)
}

// bucketFloor is the smallest duration of bucket i.
func bucketFloor(i int) time.Duration {
	if i < 1<<subBits {
		return time.Duration(i) * time.Microsecond
	}
	e := i>>subBits + subBits - 1
	return time.Duration(uint64(1<<subBits|i&(1<<subBits-1))<<(e-subBits)) * time.Microsecond
}

// Add counts one duration. Negative durations count as 0.
func (l *Latency) Add(d time.Duration) {
	if l.counts == nil {
		l.counts = make([]uint32, latencyBuckets)
	}
	l.counts[bucketOf(d)]++
	l.count++
	l.sum += max(d, 0)
}

// Merge adds the counts of o.
func (l *Latency) Merge(o *Latency) {
	if o.count == 0 {
		return
	}
	if l.counts == nil {
		l.counts = make([]uint32, latencyBuckets)
	}
	for i, c := range o.counts {
		l.counts[i] += c
	}
	l.count += o.count
	l.sum += o.sum
}

// Count is the number of durations, Sum their sum.
func (l *Latency) Count() uint64      { return l.count }
func (l *Latency) Sum() time.Duration { return l.sum }

// Quantile gives the middle of the bucket that holds the q-th smallest duration (0 < q <= 1); 0 when empty.
func (l *Latency) Quantile(q float64) time.Duration {
	if l.count == 0 {
		return 0
	}
	rank := uint64(max(q*float64(l.count)+0.9999999, 1)) // ceil
	rank = min(rank, l.count)
	var seen uint64
	for i, c := range l.counts {
		seen += uint64(c)
		if seen >= rank {
			if i == latencyBuckets-1 {
				return bucketFloor(i)
			}
			return (bucketFloor(i) + bucketFloor(i+1)) / 2
		}
	}
	return 0
}

// Buckets calls f for every bucket that is not empty, shortest first, with its upper bound.
func (l *Latency) Buckets(f func(upper time.Duration, count uint32)) {
	for i, c := range l.counts {
		if c > 0 {
			f(bucketFloor(i+1), c)
		}
	}
}

// AppendBinary writes the histogram in a few bytes: count of non-empty buckets, then (gap, count) pairs, then the sum.
func (l *Latency) AppendBinary(b []byte) []byte {
	n := 0
	for _, c := range l.counts {
		if c > 0 {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	last := 0
	for i, c := range l.counts {
		if c > 0 {
			b = binary.AppendUvarint(b, uint64(i-last))
			b = binary.AppendUvarint(b, uint64(c))
			last = i
		}
	}
	return binary.AppendUvarint(b, uint64(l.sum))
}

// readLatency reads what AppendBinary wrote and gives the rest of b. ok is false when b is damaged.
func readLatency(b []byte) (l Latency, rest []byte, ok bool) {
	n, b, ok := uvarint(b)
	if !ok || n > latencyBuckets {
		return l, nil, false
	}
	at := 0
	for range n {
		var gap, c uint64
		if gap, b, ok = uvarint(b); !ok {
			return l, nil, false
		}
		if c, b, ok = uvarint(b); !ok || c > 1<<32-1 || gap >= uint64(latencyBuckets-at) {
			return l, nil, false
		}
		if l.counts == nil {
			l.counts = make([]uint32, latencyBuckets)
		}
		at += int(gap)
		l.counts[at] = uint32(c)
		l.count += c
	}
	sum, b, ok := uvarint(b)
	l.sum = time.Duration(sum)
	return l, b, ok && sum < 1<<63
}

func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}
