// Cuts GitHub's OpenAPI description (13 MB) down to the calls that Muster makes, and turns OpenAPI 3.0
// schemas into plain JSON Schema (`nullable`, `example`), so that a validator can use them as they are.
//
// Usage: node slim-openapi.js <output file>
//
// The output is one JSON object:
//   paths       path template -> method -> {parameters, requestBody, responses}
//   components  only what the paths refer to, found by following every $ref
//   webhooks    action of workflow_job -> JSON Schema of the payload
//   examples    event name -> payloads as GitHub sent them (@octokit/webhooks-examples)
//   answers     "METHOD path" -> the description's own example of a success, as a template
'use strict'
const fs = require('node:fs')
const path = require('node:path')

const modules = path.join(__dirname, 'node_modules')
const read = (file) => JSON.parse(fs.readFileSync(path.join(modules, file), 'utf8'))
const dotcom = read('@octokit/openapi/generated/api.github.com.json')
const cloud = read('@octokit/openapi/generated/ghec.json')
const payloads = read('@octokit/webhooks-examples/api.github.com/index.json')

const WANTED_DOTCOM = [
  /^\/app$/,
  /^\/app\/hook\/deliveries/,
  /^\/app\/installations(\/\{installation_id\}(\/access_tokens)?)?$/,
  /^\/installation\/repositories$/,
  /^\/orgs\/\{org\}\/installation$/,
  /^\/repos\/\{owner\}\/\{repo\}\/installation$/,
  /^\/orgs\/\{org\}\/actions\/runner-groups(\/\{runner_group_id\}(\/(runners|repositories))?)?$/,
  /^\/(orgs\/\{org\}|repos\/\{owner\}\/\{repo\})\/actions\/runners(\/\{runner_id\}|\/generate-jitconfig)?$/,
  /^\/repos\/\{owner\}\/\{repo\}\/actions\/jobs\/\{job_id\}(\/rerun)?$/,
  /^\/repos\/\{owner\}\/\{repo\}\/actions\/runs(\/\{run_id\}(\/(jobs|cancel|rerun|rerun-failed-jobs|attempts\/\{attempt_number\}(\/jobs)?))?)?$/,
  /^\/repos\/\{owner\}\/\{repo\}\/releases$/,
  /^\/rate_limit$/,
]
const WANTED_CLOUD = [
  /^\/enterprises\/\{enterprise\}\/actions\/runner-groups(\/\{runner_group_id\}(\/runners)?)?$/,
  /^\/enterprises\/\{enterprise\}\/actions\/runners(\/\{runner_id\}|\/generate-jitconfig)?$/,
  /^\/enterprises\/\{enterprise\}\/installation$/,
]
const METHODS = ['get', 'put', 'post', 'patch', 'delete']

const slim = { source: `${dotcom.info.title} ${dotcom.info.version}`, paths: {}, components: {}, webhooks: {}, examples: {}, answers: {} }

// Schemas of enterprise calls live apart from the others: both descriptions use the same names for
// components that differ in detail.
function take(description, wanted, prefix) {
  const pending = []

  function convert(node, key) {
    if (Array.isArray(node)) return node.map((item) => convert(item))
    if (node === null || typeof node !== 'object') return node
    const out = {}
    for (const [name, value] of Object.entries(node)) {
      // A property may well be called "example" or "nullable": only keywords are dropped.
      const keyword = key !== 'properties'
      if (keyword && ['nullable', 'example', 'examples', 'description', 'externalDocs', 'title', 'deprecated', 'readOnly'].includes(name)) continue
      if (keyword && (name.startsWith('x-') || name === 'format' && value === 'uri')) continue
      if (keyword && name === '$ref') {
        const target = value.replace('#/components/', `#/components/${prefix}`)
        out.$ref = target
        pending.push(value)
        continue
      }
      out[name] = convert(value, name)
    }
    if (key !== 'properties' && node.nullable === true) return withNull(out)
    return out
  }

  function withNull(schema) {
    if (typeof schema.type === 'string' && !schema.$ref && !schema.allOf && !schema.anyOf && !schema.oneOf) {
      schema.type = [schema.type, 'null']
      if (schema.enum && !schema.enum.includes(null)) schema.enum = [...schema.enum, null]
      return schema
    }
    return { anyOf: [schema, { type: 'null' }] }
  }

  function resolve(node) {
    return node.$ref ? node.$ref.slice(2).split('/').reduce((at, part) => at[part], description) : node
  }

  function operation(op, shared) {
    const out = { parameters: [], responses: {} }
    for (const parameter of [...shared, ...(op.parameters ?? [])].map(resolve)) {
      out.parameters.push({ name: parameter.name, in: parameter.in, required: parameter.required === true, schema: convert(parameter.schema ?? {}) })
    }
    if (op.requestBody) {
      const body = resolve(op.requestBody)
      const content = body.content['application/json']
      out.requestBody = { required: body.required === true, schema: convert(content?.schema ?? {}) }
    }
    for (const [status, answer] of Object.entries(op.responses)) {
      const content = resolve(answer).content?.['application/json']
      out.responses[status] = content?.schema ? convert(content.schema) : null
    }
    return out
  }

  function example(op) {
    const success = Object.entries(op.responses).find(([status]) => status.startsWith('2'))
    const content = success && resolve(success[1]).content?.['application/json']
    const first = content?.example ?? Object.values(content?.examples ?? {})[0]
    return first && resolve(first).value
  }

  for (const [template, item] of Object.entries(description.paths)) {
    if (!wanted.some((pattern) => pattern.test(template))) continue
    slim.paths[template] = {}
    for (const method of METHODS.filter((name) => item[name])) {
      slim.paths[template][method] = operation(item[method], item.parameters ?? [])
      const value = example(item[method])
      if (value) slim.answers[`${method.toUpperCase()} ${template}`] = value
    }
  }
  if (prefix === '') {
    for (const [name, item] of Object.entries(description['x-webhooks'])) {
      const action = /^workflow-job-(.*)$/.exec(name)?.[1].replace('-', '_')
      if (action) slim.webhooks[action] = convert(item.post.requestBody.content['application/json'].schema)
    }
  }

  const seen = new Set()
  while (pending.length > 0) {
    const ref = pending.pop()
    if (seen.has(ref)) continue
    seen.add(ref)
    const [, , kind, name] = ref.split('/')
    const home = (slim.components[prefix + kind] ??= {})
    home[name] = convert(description.components[kind][name])
  }
}

take(dotcom, WANTED_DOTCOM, '')
take(cloud, WANTED_CLOUD, 'enterprise-')

// An error of the description: the list writes an installation out and has its account be a user AND an
// enterprise (allOf); the component that single installations refer to says either (anyOf).
slim.paths['/app/installations'].get.responses['200'] = { type: 'array', items: { $ref: '#/components/schemas/installation' } }

for (const { name, examples } of payloads) {
  if (['workflow_job', 'ping'].includes(name)) slim.examples[name] = examples
}

const target = process.argv[2]
if (!target) throw new Error('usage: node slim-openapi.js <output file>')
fs.mkdirSync(path.dirname(target), { recursive: true })
const text = JSON.stringify(slim)
// Written beside and renamed: a test that starts meanwhile reads the old file or the new one.
fs.writeFileSync(`${target}.new`, text)
fs.renameSync(`${target}.new`, target)
console.log(`${target}: ${Object.keys(slim.paths).length} paths, ${Math.round(text.length / 1024)} KiB`)
