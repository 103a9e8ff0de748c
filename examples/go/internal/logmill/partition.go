package logmill

import "encoding/binary"

// PartitionOf is the partition of a key: the one that the node chooses for records without a number, and Kafka's clients.
// It is toPositive(murmur2(key)) % partitions of org.apache.kafka.common.utils.Utils.
func PartitionOf(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions
}

func murmur2(data []byte) uint32 {
	const m = 0x5bd1e995
	hash := 0x9747b28c ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		hash = hash*m ^ (k^k>>24)*m
	}
	for i, b := range data {
		hash ^= uint32(b) << (8 * i)
	}
	if len(data) > 0 {
		hash *= m
	}
	hash = (hash ^ hash>>13) * m
	return hash ^ hash>>15
}
