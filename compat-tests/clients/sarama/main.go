// One round of sarama: produce every record, read them back through a group, commit.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func main() {
	config := sarama.NewConfig()
	config.Version = sarama.V3_9_0_0
	config.Producer.Compression = codecs[os.Getenv("CODEC")]
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Producer.Return.Successes = true
	config.Net.MaxOpenRequests = 1
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	count, err := strconv.Atoi(os.Getenv("COUNT"))
	check(err)
	produce(config, count)
	consume(config, count)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func produce(config *sarama.Config, count int) {
	producer, err := sarama.NewAsyncProducer([]string{os.Getenv("BOOTSTRAP")}, config)
	check(err)
	words, err := os.Open(os.Getenv("WORDS"))
	check(err)
	go func() {
		for lines := bufio.NewScanner(words); lines.Scan(); {
			key, value, _ := bytes.Cut(bytes.Clone(lines.Bytes()), []byte("\t"))
			producer.Input() <- &sarama.ProducerMessage{
				Topic: os.Getenv("TOPIC"), Key: sarama.ByteEncoder(key), Value: sarama.ByteEncoder(value),
			}
		}
	}()
	for acknowledged := 0; acknowledged < count; acknowledged++ {
		select {
		case <-producer.Successes():
		case failure := <-producer.Errors():
			log.Fatal(failure)
		}
	}
	check(producer.Close())
}

type reader struct {
	mutex sync.Mutex
	out   *bufio.Writer
	left  int
	done  context.CancelFunc
}

func (r *reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (r *reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			r.mutex.Lock()
			fmt.Fprintf(r.out, "%s\t%s\n", message.Key, message.Value)
			session.MarkMessage(message, "")
			r.left--
			if r.left == 0 {
				session.Commit()
				r.done()
			}
			r.mutex.Unlock()
		case <-session.Context().Done():
			return nil
		}
	}
}

func consume(config *sarama.Config, count int) {
	group, err := sarama.NewConsumerGroup([]string{os.Getenv("BOOTSTRAP")}, os.Getenv("GROUP"), config)
	check(err)
	file, err := os.Create(os.Getenv("OUT"))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := &reader{out: bufio.NewWriter(file), left: count, done: cancel}
	for ctx.Err() == nil {
		check(group.Consume(ctx, []string{os.Getenv("TOPIC")}, r))
	}
	check(group.Close())
	if r.left > 0 {
		log.Fatalf("%d records did not come", r.left)
	}
	check(r.out.Flush())
	check(file.Close())
}
