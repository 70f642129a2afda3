// One round of franz-go: produce every record, read them back through a group, commit.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func main() {
	count, err := strconv.Atoi(os.Getenv("COUNT"))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	produce(ctx)
	consume(ctx, count)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func produce(ctx context.Context) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("BOOTSTRAP")),
		kgo.DefaultProduceTopic(os.Getenv("TOPIC")),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codecs[os.Getenv("CODEC")]),
	)
	check(err)
	defer client.Close()
	words, err := os.Open(os.Getenv("WORDS"))
	check(err)
	for lines := bufio.NewScanner(words); lines.Scan(); {
		key, value, _ := bytes.Cut(bytes.Clone(lines.Bytes()), []byte("\t"))
		client.Produce(ctx, &kgo.Record{Key: key, Value: value}, func(_ *kgo.Record, err error) { check(err) })
	}
	check(client.Flush(ctx))
}

func consume(ctx context.Context, count int) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("BOOTSTRAP")),
		kgo.ConsumerGroup(os.Getenv("GROUP")),
		kgo.ConsumeTopics(os.Getenv("TOPIC")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	check(err)
	defer client.Close()
	file, err := os.Create(os.Getenv("OUT"))
	check(err)
	out := bufio.NewWriter(file)
	for left := count; left > 0; {
		fetches := client.PollFetches(ctx)
		for _, problem := range fetches.Errors() {
			log.Fatalf("%d records did not come: %v", left, problem.Err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Fprintf(out, "%s\t%s\n", record.Key, record.Value)
			left--
		})
	}
	check(client.CommitUncommittedOffsets(ctx))
	check(out.Flush())
	check(file.Close())
}
