// One round of sarama: produce every record, read them back through a group, commit.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
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
	// By default it gives up after a third of a second, long before another broker leads.
	config.Producer.Retry.Max, config.Metadata.Retry.Max = 300, 300
	config.Net.MaxOpenRequests = 1
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	secure(config)
	count, err := strconv.Atoi(os.Getenv("COUNT"))
	check(err)
	produce(config, count)
	consume(config, count)
}

type token string

func (t token) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: string(t)}, nil
}

// secure sets what a listener over TLS asks for; nothing where there is none.
func secure(config *sarama.Config) {
	if os.Getenv("SECURITY") == "" {
		return
	}
	config.Net.TLS.Enable, config.Net.TLS.Config = true, tlsConfig()
	mechanism := os.Getenv("MECHANISM")
	if mechanism == "" {
		return
	}
	sasl := &config.Net.SASL
	sasl.Enable, sasl.Handshake, sasl.Mechanism = true, true, sarama.SASLMechanism(mechanism)
	sasl.User, sasl.Password = os.Getenv("LOGIN_USER"), os.Getenv("LOGIN_PASSWORD")
	switch mechanism {
	case sarama.SASLTypeOAuth:
		sasl.TokenProvider = token(os.Getenv("TOKEN"))
	case sarama.SASLTypeSCRAMSHA256:
		sasl.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA256} }
	case sarama.SASLTypeSCRAMSHA512:
		sasl.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA512} }
	}
}

func tlsConfig() *tls.Config {
	authority, err := os.ReadFile(os.Getenv("CA"))
	check(err)
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(authority)
	if os.Getenv("KEY") != "" {
		pair, err := tls.LoadX509KeyPair(os.Getenv("CERTIFICATE"), os.Getenv("KEY"))
		check(err)
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// scramClient is sarama's seam over the package that its own examples take.
type scramClient struct {
	hash         scram.HashGeneratorFcn
	conversation *scram.ClientConversation
}

func (c *scramClient) Begin(user, password, authorization string) error {
	client, err := c.hash.NewClient(user, password, authorization)
	if err == nil {
		c.conversation = client.NewConversation()
	}
	return err
}

func (c *scramClient) Step(challenge string) (string, error) { return c.conversation.Step(challenge) }
func (c *scramClient) Done() bool                            { return c.conversation.Done() }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func produce(config *sarama.Config, count int) {
	producer, err := sarama.NewAsyncProducer(strings.Split(os.Getenv("BOOTSTRAP"), ","), config)
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
	group, err := sarama.NewConsumerGroup(strings.Split(os.Getenv("BOOTSTRAP"), ","), os.Getenv("GROUP"), config)
	check(err)
	file, err := os.Create(os.Getenv("OUT"))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := &reader{out: bufio.NewWriter(file), left: count, done: cancel}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{os.Getenv("TOPIC")}, r); err != nil {
			log.Print("again: ", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	check(group.Close())
	if r.left > 0 {
		log.Fatalf("%d records did not come", r.left)
	}
	check(r.out.Flush())
	check(file.Close())
}
