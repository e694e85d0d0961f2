// An app's whole day, with the packages that apps are made of and nothing of ours.
//
//   node day.mjs where.json      what `taprail-sim up --json` has printed
//
// Prints one JSON object: the steps that were taken. The first one that goes wrong ends it.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import axios from 'axios'
import { io } from 'socket.io-client'

const where = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const LONGEST_MS = 30_000
const UNIT = 1_000_000

const token = (user) => where.users.find((each) => each.id === user).jwt
const card = (name) => where.cards.find((each) => each.name === name).cardUuid

/** An HTTP client that speaks for a user, and takes every answer as it comes. */
const http = (user) =>
  axios.create({
    baseURL: where.gatewayUrl,
    headers: { Authorization: `Bearer ${token(user)}` },
    validateStatus: () => true,
  })

/** A socket that keeps what it hears, so that nothing that comes early is missed. */
function listen(auth, options = {}) {
  const socket = io(where.gatewayUrl, {
    path: '/nfc-ws', auth, forceNew: true, reconnection: false, ...options,
  })
  const heard = []
  const waiting = new Set()
  const look = () => waiting.forEach((each) => each())
  socket.onAny((event, data) => { heard.push({ event, data }); look() })
  socket.on('connect_error', (error) => { heard.push({ event: 'refused', data: error }); look() })
  const next = (event, matches = () => true) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        const events = heard.map((each) => each.event).join(', ')
        reject(new Error(`no ${event}; heard: ${events || 'nothing'}`))
      }, LONGEST_MS)
      const attempt = () => {
        const at = heard.findIndex((each) => each.event === event && matches(each.data))
        if (at < 0) return
        clearTimeout(late)
        waiting.delete(attempt)
        resolve(heard.splice(at, 1)[0].data)
      }
      waiting.add(attempt)
      attempt()
    })
  return { socket, heard, next, say: (...words) => socket.emit(...words) }
}

const order = (name, amount) => ({
  cardUuid: card(name), amount,
  merchantId: where.merchants[0].id, terminalId: where.terminals[0].id,
})

async function pay(user, amount, key) {
  const headers = key === undefined ? {} : { 'Idempotency-Key': key }
  const answer = await http(user).post('/api/payment/process-async', order(user, amount), { headers })
  assert.equal(answer.status, 200, JSON.stringify(answer.data))
  return answer.data
}

/** Ask for a transaction until it is in one of these states. */
async function poll(user, path, ...states) {
  const until = Date.now() + LONGEST_MS
  for (;;) {
    const { status, data } = await http(user).get(path)
    assert.equal(status, 200)
    if (states.includes(data.transaction.status)) return data.transaction
    assert.ok(Date.now() < until, `still ${data.transaction.status}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Whether this gateway has an address; one that it has not answers so to anybody. */
async function has(method, path) {
  const { status } = await axios.request({
    method, url: where.gatewayUrl + path, validateStatus: () => true,
  })
  return status !== 404 && status !== 405
}

const isTime = (text) => assert.match(text, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)

const steps = {
  async 'nobody gets in without a token'() {
    const none = listen({})
    assert.equal((await none.next('refused')).message, 'No authentication token provided')
    const wrong = listen({ token: 'nonsense' })
    assert.equal((await wrong.next('refused')).message, 'Authentication failed')
    none.socket.close()
    wrong.socket.close()
    const answer = await axios.post(`${where.gatewayUrl}/api/payment/process-async`,
      order('alice', UNIT), { validateStatus: () => true })
    assert.equal(answer.status, 401)
  },

  async 'connects by websocket and by polling, with auth and with a header'() {
    const extraHeaders = { Authorization: `Bearer ${token('alice')}` }
    for (const [auth, options] of [
      [{ token: token('alice') }, { transports: ['websocket'] }],
      [{ token: token('alice') }, { transports: ['polling'] }],
      [{ token: token('alice') }, {}],
      [{}, { extraHeaders, transports: ['polling'] }],
      [{}, { extraHeaders, transports: ['websocket'] }],
    ]) {
      const app = listen(auth, options)
      const data = await app.next('connected')
      assert.equal(data.message, 'Connected to NFC Payment WebSocket')
      assert.equal(data.userId, 'alice')
      isTime(data.timestamp)
      app.say('ping')
      assert.equal((await app.next('pong')).userId, 'alice')
      app.socket.close()
    }
  },

  async 'pays, and hears of it until it is completed'() {
    const app = listen({ token: token('alice') })
    await app.next('connected')
    const uuid = card('alice')
    app.say('subscribe:card', uuid)
    assert.equal((await app.next('card:status:update')).cardUuid, uuid)
    const paid = await pay('alice', 3 * UNIT)
    assert.equal(paid.status, 'pending')
    assert.equal(paid.message, 'Payment initiated successfully')
    assert.equal(paid.websocketChannel, `transaction:${paid.transactionId}`)
    assert.match(paid.authCode, /^AUTH_/)
    assert.match(paid.estimatedProcessingTime, /second/)
    for (const name of ['processingTime', 'requestId', 'queueJobId']) assert.ok(name in paid, name)
    app.say('subscribe:transaction', paid.transactionId)
    const done = await app.next('transaction:completed')
    assert.equal(done.transactionId, paid.transactionId)
    assert.equal(done.status, 'completed')
    assert.equal(done.amount, 3 * UNIT)
    assert.match(done.txHash, /^0x[0-9a-f]{64}$/)
    isTime(done.completedAt)
    const updates = app.heard.filter((each) => each.event === 'transaction:update')
    assert.equal(updates.at(-1).data.status, 'completed')
    const { balance } = await app.next('balance:update')
    assert.equal(balance.lastTransaction.amount, -3 * UNIT)
    assert.equal(balance.lastTransaction.txHash, done.txHash)
    const { status } = await app.next('card:status:update',
      (data) => data.status.lastTransaction?.status === 'completed')
    assert.equal(status.lastTransaction.id, paid.transactionId)
    app.socket.close()
    await poll('cafe-owner', paid.statusUrl, 'completed') // the merchant sees it as well
  },

  async 'pays again, and asks until it is completed'() {
    const key = `day-${Date.now()}`
    const paid = await pay('bob', 2 * UNIT, key)
    assert.deepEqual(await pay('bob', 2 * UNIT, key), paid)
    const other = await http('bob').post('/api/payment/process-async', order('bob', 1),
      { headers: { 'Idempotency-Key': key } })
    assert.equal(other.status, 409)
    const transaction = await poll('bob', paid.statusUrl, 'completed')
    assert.equal(transaction.id, paid.transactionId)
    assert.match(transaction.processingTime, /^\d+ms$/)
    assert.equal(transaction.metadata.paymentMethod, 'nfc')
    assert.equal(transaction.metadata.processingType, 'async')
  },

  async 'is told why a payment is declined'() {
    const { status, data } = await http('alice').post('/api/payment/process-async',
      order('alice', 10 ** 15))
    assert.equal(status, 400)
    assert.equal(data.success, false)
    assert.equal(data.error, 'Transaction not authorized')
    assert.ok(data.reason && data.reasonCode)
    const bad = await http('alice').post('/api/payment/process-async',
      { ...order('alice', 1), amount: 'much' })
    assert.equal(bad.status, 400)
  },

  async 'sees nothing of others'() {
    const paid = await pay('alice', UNIT)
    const app = listen({ token: token('carol') })
    await app.next('connected')
    app.say('subscribe:transaction', paid.transactionId)
    assert.equal((await app.next('error')).message, 'Transaction not found')
    app.say('subscribe:card', { cardUuid: card('alice') })
    assert.equal((await app.next('error')).message, 'Card not found')
    const answer = await http('carol').get(paid.statusUrl)
    assert.equal(answer.status, 404)
    assert.deepEqual(answer.data, { ...answer.data, success: false, error: 'Transaction not found' })
    assert.equal((await http('carol').post('/api/payment/process-async', order('alice', 1))).status, 403)
    app.socket.close()
  },

  async 'comes back, and hears what it has missed'() {
    const before = listen({ token: token('dan') })
    const { cursor } = await before.next('connected')
    before.socket.close()
    const paid = await pay('dan', UNIT)
    await poll('dan', paid.statusUrl, 'completed')
    const app = listen({ token: token('dan'), cursor })
    assert.equal((await app.next('connected')).resumed, true)
    const { balance } = await app.next('balance:update')
    assert.equal(balance.lastTransaction.id, paid.transactionId)
    app.say('subscribe:transaction', { transactionId: paid.transactionId })
    await app.next('transaction:completed')
    const told = app.heard.map((each) => each.data.status)
    assert.deepEqual(told, ['processing', 'sent', 'completed'])
    app.say('unsubscribe:transaction', { transactionId: paid.transactionId })
    app.socket.close()
  },

  async 'looks at the queues'() {
    const path = '/api/payment/queue-status'
    if (!(await has('get', path))) return false
    const { status, data } = await http('alice').get(path)
    assert.equal(status, 200)
    for (const name of ['payment', 'mint', 'notification', 'webhook', 'cache']) {
      const queue = data.queues[name]
      assert.ok(['healthy', 'degraded', 'stopped'].includes(queue.status), name)
      for (const number of ['waiting', 'active', 'completed', 'failed', 'delayed', 'perMinute']) {
        assert.equal(typeof queue[number], 'number', `${name}.${number}`)
      }
    }
    assert.equal(typeof data.states.completed, 'number')
    isTime(data.timestamp)
  },

  async 'looks at the sockets'() {
    const path = '/api/payment/ws-status'
    if (!(await has('get', path))) return false
    const app = listen({ token: token('alice') })
    await app.next('connected')
    const { websocket } = (await http('alice').get(path)).data
    assert.equal(websocket.status, 'active')
    assert.ok(websocket.totalConnections >= 1)
    assert.deepEqual(websocket.connectedUsers, ['alice'])
    app.socket.close()
  },

  async 'is given its money back'() {
    const paid = await pay('alice', 2 * UNIT)
    const path = `/api/payment/${paid.transactionId}/refund`
    if (!(await has('post', path))) return false
    await poll('alice', paid.statusUrl, 'completed')
    const app = listen({ token: token('alice') })
    await app.next('connected')
    const headers = { 'Idempotency-Key': `refund-${Date.now()}` }
    const answer = await http('cafe-owner').post(path, { amount: UNIT }, { headers })
    assert.ok([200, 201, 202].includes(answer.status), JSON.stringify(answer.data))
    const { balance } = await app.next('balance:update',
      (data) => data.balance.lastTransaction.amount === UNIT)
    assert.match(balance.lastTransaction.txHash, /^0x[0-9a-f]{64}$/)
    const again = await http('cafe-owner').post(path, { amount: UNIT }, { headers })
    assert.deepEqual(again.data, answer.data)
    const more = await http('cafe-owner').post(path, { amount: 2 * UNIT })
    assert.ok(more.status >= 400 && more.status < 500, 'more than was paid')
    assert.equal((await http('alice').post(path, { amount: 1 })).status >= 400, true)
    app.socket.close()
  },
}

const taken = {}
for (const [name, step] of Object.entries(steps)) {
  try {
    taken[name] = (await step()) ?? true
  } catch (error) {
    error.message = `${name}: ${error.message}`
    throw error
  }
}
console.log(JSON.stringify(taken))
process.exit(0)
